"""The checks that types cannot make, all before anything is computed or written."""

from __future__ import annotations

import math
import os
from pathlib import Path

from hbdp_fed.adversary import ATTACKS
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.federation.strategy import WEIGHTINGS
from hbdp_fed.models import MODELS
from hbdp_fed.privacy import ACCOUNTANTS
from hbdp_fed.training import OPTIMIZERS, resolve_device
from simulations.schema import RunConfig

NO_ATTACK = "none"
RECORDED = ("all", "probes")


def check(config: RunConfig) -> None:
    """Refuse what cannot run.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    _at_least("clients", config.clients, 1)
    _at_least("seed", config.seed, 0)
    if not config.eps > 0:
        raise SettingError("eps", f"must be a positive number or inf (no privacy), got {config.eps:g}")
    if not 0 < config.delta < 1:
        raise SettingError("delta", f"must lie strictly between 0 and 1, got {config.delta:g}")
    resolve_device(config.device)
    _known("privacy.accountant", config.privacy.accountant, ACCOUNTANTS)
    _known("model", config.model.name, MODELS)
    _known("training.optimizer", config.training.optimizer, OPTIMIZERS)
    if not 0 <= config.training.momentum < 1:
        raise SettingError("training.momentum", f"must lie in [0, 1), got {config.training.momentum:g}")
    _at_least("training.max_physical_batch", config.training.max_physical_batch, 1)
    _known("federation.weighting", config.federation.weighting, WEIGHTINGS)
    _known("federation.record", config.federation.record, RECORDED)
    if not (config.federation.round_timeout_s > 0 and math.isfinite(config.federation.round_timeout_s)):
        raise SettingError("federation.round_timeout_s", "must be a positive number of seconds")
    _known("adversary.attack", config.adversary.attack, (*ATTACKS, NO_ATTACK))
    _at_least("adversary.probes", config.adversary.probes, 0)
    _at_least("adversary.bins", config.adversary.bins, 2)
    if not 0 < config.adversary.prior < 1:
        raise SettingError("adversary.prior", f"must lie strictly between 0 and 1, got {config.adversary.prior:g}")
    _check_engine(config)


def _check_engine(config: RunConfig) -> None:
    engine = config.engine
    if engine.workers is not None:
        _at_least("engine.workers", engine.workers, 1)
    _at_least("engine.threads_per_client", engine.threads_per_client, 1)
    if engine.gpus_per_client is not None and not 0 <= engine.gpus_per_client <= 1:
        raise SettingError("engine.gpus_per_client", f"must lie in [0, 1], got {engine.gpus_per_client:g}")


def data_root() -> Path | None:
    """The folder of data sets that are files: the environment variable ``HBDP_DATA``, None where it is not set."""
    value = os.environ.get("HBDP_DATA")
    return Path(value) if value else None


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise SettingError(key, f"must be at least {least}, got {value}")


def _known(key: str, value: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if value not in names:
        raise unknown_choice(key, value, names)
