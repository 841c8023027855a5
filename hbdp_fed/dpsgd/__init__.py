"""The DP-SGD step: Poisson sampling, per-record clipping, noise. Training and the adversary both build on it."""

from hbdp_fed.dpsgd.clipping import (
    GradientSum,
    Summer,
    clip_factors,
    clipped_summer,
    plain_summer,
    record_losses,
)
from hbdp_fed.dpsgd.noise import gaussian_noise, noise_to_resolution
from hbdp_fed.dpsgd.sampling import poisson_batches
from hbdp_fed.dpsgd.step import StepGradient, dp_sgd_gradient, make_summer

__all__ = [
    "GradientSum",
    "StepGradient",
    "Summer",
    "clip_factors",
    "clipped_summer",
    "dp_sgd_gradient",
    "gaussian_noise",
    "make_summer",
    "noise_to_resolution",
    "plain_summer",
    "poisson_batches",
    "record_losses",
]
