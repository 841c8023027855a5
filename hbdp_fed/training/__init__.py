"""The local loop that a hospital runs, and how a model's utility is judged."""

from hbdp_fed.training.augmentation import AUGMENTATIONS, views
from hbdp_fed.training.averaging import averaged
from hbdp_fed.training.device import DEVICES, resolve_device
from hbdp_fed.training.local import LocalResult, LocalSettings, LocalStep, optimizer_at, train_locally
from hbdp_fed.training.precision import PRECISIONS
from hbdp_fed.training.schedules import SCHEDULES, Progress, ScheduleSettings, learning_rate_factor, round_progress

__all__ = [
    "AUGMENTATIONS",
    "DEVICES",
    "PRECISIONS",
    "SCHEDULES",
    "LocalResult",
    "LocalSettings",
    "LocalStep",
    "Progress",
    "ScheduleSettings",
    "averaged",
    "learning_rate_factor",
    "optimizer_at",
    "resolve_device",
    "round_progress",
    "train_locally",
    "views",
]
