"""The DP-SGD step: Poisson sampling, per-record clipping, noise. Training and the adversary both build on it."""

from hbdp_fed.dpsgd.clipping import GradientSum, Summer, clip_factors
from hbdp_fed.dpsgd.grad_modes import GRAD_MODES, clipped_summer, plain_summer
from hbdp_fed.dpsgd.losses import LOSSES, RecordLoss, record_loss, record_losses
from hbdp_fed.dpsgd.moving import MovingWeights
from hbdp_fed.dpsgd.noise import (
    EFFECTIVELY_GAUSSIAN,
    NoiseSource,
    gaussian_noise,
    noise_to_resolution,
    secure_noise,
    seeded_noise,
)
from hbdp_fed.dpsgd.optimizers import step_weights
from hbdp_fed.dpsgd.record_gradients import clipped_record_gradients, flattened
from hbdp_fed.dpsgd.sampling import (
    UnitBatch,
    at_most_each,
    count_patients,
    num_units,
    patient_batches,
    poisson_batches,
    unit_batches,
)
from hbdp_fed.dpsgd.step import StepGradient, dp_sgd_gradient, make_summer
from hbdp_fed.dpsgd.update_norm import largest_update_norm
from hbdp_fed.dpsgd.verifying import UnequalGradients, check_record_gradients

__all__ = [
    "EFFECTIVELY_GAUSSIAN",
    "GRAD_MODES",
    "LOSSES",
    "GradientSum",
    "MovingWeights",
    "NoiseSource",
    "RecordLoss",
    "StepGradient",
    "Summer",
    "UnequalGradients",
    "UnitBatch",
    "at_most_each",
    "check_record_gradients",
    "clip_factors",
    "clipped_record_gradients",
    "clipped_summer",
    "count_patients",
    "dp_sgd_gradient",
    "flattened",
    "gaussian_noise",
    "largest_update_norm",
    "make_summer",
    "noise_to_resolution",
    "num_units",
    "patient_batches",
    "plain_summer",
    "poisson_batches",
    "record_loss",
    "record_losses",
    "secure_noise",
    "seeded_noise",
    "step_weights",
    "unit_batches",
]
