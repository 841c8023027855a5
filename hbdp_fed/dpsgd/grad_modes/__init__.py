"""The ways to compute clipped gradients: this project's own and the references it is held against."""

from hbdp_fed.dpsgd.grad_modes.registry import GRAD_MODES, GradMode, clipped_summer, plain_summer

__all__ = ["GRAD_MODES", "GradMode", "clipped_summer", "plain_summer"]
