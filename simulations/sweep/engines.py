"""How the runs of a sweep compute: each in its own process, or as workers on one Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.cluster import shared_cluster
from hbdp_fed.federation.engine import IN_PROCESS, default_workers
from simulations.schema import SweepConfig
from simulations.sweep.work import Quota

_RAY = "ray"


def check_quota(config: SweepConfig, fixed: Sequence[str]) -> None:
    """Refuse what this machine does not have.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    processors = _processors()
    if config.parallel is not None and config.parallel < 1:
        raise SettingError("parallel", f"must be at least 1, got {config.parallel}")
    if not 1 <= config.cpus_per_run <= processors and _given(fixed, "engine.address") is None:
        raise SettingError("cpus_per_run", f"must be from 1 to this machine's {processors}, got {config.cpus_per_run}")


@contextmanager
def quota(config: SweepConfig, fixed: Sequence[str]) -> Iterator[Quota]:
    """What each run may take, with the cluster that runs share for as long as this lasts, if they need one.

    A run with one processor computes in its own process, where it has the same bits and nothing to start. With more, it
    gets as many workers on a cluster of the sweep's, or the one that ``engine.address`` names.

    Args:
        config: The sweep's own settings.
        fixed: What all runs share: an ``engine`` that was asked for is kept.
    """
    parallel = config.parallel or max(1, _processors() // config.cpus_per_run)
    engine, address = _given(fixed, "engine"), _given(fixed, "engine.address")
    if engine is None:
        engine = IN_PROCESS if config.cpus_per_run == 1 and address is None else _RAY
    given = [] if _given(fixed, "engine") else [f"engine={engine}"]
    if engine != _RAY:
        yield Quota(parallel, config.cpus_per_run, tuple(given))
        return
    if _given(fixed, "engine.workers") is None:
        given.append(f"engine.workers={config.cpus_per_run}")
    if address is not None:
        yield Quota(parallel, config.cpus_per_run, tuple(given))
        return
    gpus = _given(fixed, "device") != "cpu"
    with shared_cluster(processors=parallel * config.cpus_per_run, gpus=gpus) as found:
        yield Quota(parallel, config.cpus_per_run, (*given, f"engine.address={found}"))


def _given(fixed: Sequence[str], key: str) -> str | None:
    return next((text.partition("=")[2] for text in fixed if text.partition("=")[0] == key), None)


def _processors() -> int:
    return default_workers(num_hospitals=1_000_000, threads_per_client=1)
