"""A federated hospital simulator for high-budget differential privacy and image reconstruction risk."""

__version__ = "0.1.0"
