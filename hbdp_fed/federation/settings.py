"""What the apps need to know, as one JSON string, and the one function through which they learn it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from flwr.app import Context
from pydantic import TypeAdapter

from hbdp_fed.federation.aggregation import AggregationSettings, mean_shares
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.screened import Screening
from hbdp_fed.federation.server_step import ServerSettings
from hbdp_fed.strict_json import dumps
from hbdp_fed.training import LocalSettings
from hbdp_fed.training.pace import SiteProfile
from hbdp_fed.types import HospitalPlan

RUN_CONFIG_KEY = "settings"
"""Where a deployed app finds the JSON string in Flower's run configuration."""


@dataclass(frozen=True)
class Site:
    """One hospital: what it agreed to, and where its own records lie.

    Attributes:
        plan: Name, records, mechanism and the epsilon that follows.
        shard: Path of the hospital's records (see :mod:`hbdp_fed.data.shards`), on the hospital's own disk.
        profile: Its computer and line in a simulation.
    """

    plan: HospitalPlan
    shard: str
    profile: SiteProfile = field(default_factory=SiteProfile)


@dataclass(frozen=True)
class AppSettings:
    """The resolved settings of one federation.

    Attributes:
        seed: The run's seed, from which the random streams of a simulation derive.
        delta: The budget's delta, the same at every hospital.
        sites: The hospitals in their fixed order: hospital i is Flower's partition i.
        rounds: Training rounds.
        local_steps: DP-SGD steps a hospital takes in a training round.
        local: How a hospital trains.
        weighting: Weight of a hospital in the average: its number of records, or the same for all.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: PyTorch threads of a hospital; another number gives other bits.
        round_timeout_s: How long a hospital is given for its answer, in seconds.
        server: The server's own optimiser; None adds the hospitals' mean update to the global weights.
        secure_noise: Whether the noise comes from a generator that nobody can repeat. Seeded noise protects nobody:
            it is for simulations that have to give the same bits again.
        replayable_batches: Whether the seed also tells who is in a batch, and in which view. For simulations, whose
            audit has to know. The guarantee counts on batches that nobody knows.
        participation: Share of the hospitals that each training round asks, in (0, 1]. Which they are follows from the
            seed, so that every hospital plans with the rounds that it will be asked in.
        on_failure: What a hospital that fails does to the run: ``abort`` ends it, ``tolerate`` goes on without its
            answer.
        min_hospitals: Of those that a round is planned with, how many have to answer for it to count.
        deadline_s: Simulated seconds after which a training round goes on without those that are late (see
            :mod:`hbdp_fed.federation.clock`); None waits for everybody.
        faults: What goes wrong in a simulation, on purpose.
        aggregation: What the server makes of the updates.
        secure_aggregation: Whether hospitals mask their updates, so that the server learns their sum alone.
        screening: By what the hospitals of a simulation examine every model that they receive; None: they do not.
    """

    seed: int
    delta: float
    sites: tuple[Site, ...]
    rounds: int
    local_steps: int
    local: LocalSettings
    weighting: Literal["records", "equal"]
    device: str
    threads: int
    round_timeout_s: float
    server: ServerSettings | None = None
    secure_noise: bool = True
    replayable_batches: bool = False
    participation: float = 1.0
    on_failure: Literal["abort", "tolerate"] = "abort"
    min_hospitals: int = 1
    deadline_s: float | None = None
    faults: tuple[Fault, ...] = ()
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    secure_aggregation: bool = False
    screening: Screening | None = None

    def site(self, hospital: str) -> Site:
        """The site called ``hospital``."""
        return next(site for site in self.sites if site.plan.name == hospital)

    @property
    def hospitals(self) -> tuple[str, ...]:
        """All names in their fixed order."""
        return tuple(site.plan.name for site in self.sites)

    def shares_of(self, hospitals: Sequence[str]) -> Mapping[str, float]:
        """The weight of each of these hospitals in their mean; they add up to 1."""
        records = {site.plan.name: site.plan.num_records for site in self.sites}
        shares = mean_shares([records[name] for name in hospitals], self.weighting)
        return dict(zip(hospitals, shares, strict=True))

    def to_json(self) -> str:
        """Strict JSON; an infinite epsilon is the string ``inf``."""
        return dumps(self)

    @classmethod
    def from_json(cls, text: str) -> AppSettings:
        """The inverse of :meth:`to_json`.

        Raises:
            pydantic.ValidationError: naming every field that is missing or of the wrong type.
        """
        return TypeAdapter(cls).validate_json(text)


def resolved_settings(context: Context, given: str | None) -> AppSettings:
    """The settings of an app: those ``given`` through a closure in a simulation, else the deployment's run config.

    Args:
        context: The app's Flower context.
        given: The JSON string, or None in a deployment.

    Raises:
        KeyError: if neither is there.
    """
    return _parsed(given if given is not None else str(context.run_config[RUN_CONFIG_KEY]))


@lru_cache(maxsize=1)
def _parsed(text: str) -> AppSettings:
    """A worker process is asked again and again with the same text, which is long where there are many hospitals."""
    return AppSettings.from_json(text)
