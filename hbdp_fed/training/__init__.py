"""The local loop that a hospital runs, and how a model's utility is judged."""

from hbdp_fed.training.device import DEVICES, resolve_device
from hbdp_fed.training.evaluation import Utility, best_threshold, predict, utility
from hbdp_fed.training.local import OPTIMIZERS, LocalResult, OptimizerSettings, train_locally

__all__ = [
    "DEVICES",
    "OPTIMIZERS",
    "LocalResult",
    "OptimizerSettings",
    "Utility",
    "best_threshold",
    "predict",
    "resolve_device",
    "train_locally",
    "utility",
]
