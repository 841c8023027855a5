"""The configuration files, as a package, so that they travel in the wheel (Hydra finds them as ``pkg://configs``)."""
