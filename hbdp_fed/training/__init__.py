"""The local loop that a hospital runs, and how a model's utility is judged."""

from hbdp_fed.training.augmentation import AUGMENTATIONS, views
from hbdp_fed.training.averaging import averaged
from hbdp_fed.training.clippable import check_clippable
from hbdp_fed.training.correction import (
    CORRECTIONS,
    NO_CORRECTION,
    SCAFFOLD,
    added_gradient,
    gradient_weights,
    mean_gradient,
    next_control,
)
from hbdp_fed.training.device import DEVICES, resolve_device
from hbdp_fed.training.local import (
    LocalResult,
    LocalSettings,
    LocalStep,
    optimizer_at,
    smallest_learning_rate,
    train_locally,
)
from hbdp_fed.training.precision import PRECISIONS
from hbdp_fed.training.schedules import SCHEDULES, Progress, ScheduleSettings, learning_rate_factor, round_progress

__all__ = [
    "AUGMENTATIONS",
    "CORRECTIONS",
    "DEVICES",
    "NO_CORRECTION",
    "PRECISIONS",
    "SCAFFOLD",
    "SCHEDULES",
    "LocalResult",
    "LocalSettings",
    "LocalStep",
    "Progress",
    "ScheduleSettings",
    "added_gradient",
    "averaged",
    "check_clippable",
    "gradient_weights",
    "learning_rate_factor",
    "mean_gradient",
    "next_control",
    "optimizer_at",
    "resolve_device",
    "round_progress",
    "smallest_learning_rate",
    "train_locally",
    "views",
]
