"""A tiny federation: three hospitals of unequal size with random images, on disk as a hospital's records are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from hbdp_fed.data import Records, write_shard
from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import RoundReport, TrainRequest
from hbdp_fed.federation.engine import EngineSettings, Simulated, run_federation
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import ServerHooks, Standing, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.federation.simulated_grid import SimulatedGrid
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.privacy import plan_hospital
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import ModelSpec, ModelUpdate, OptimizerSettings, PrivacyBudget, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
ROUNDS, LOCAL_STEPS, PROBES = 2, 3, 1
SIZES = (20, 31, 12)


@pytest.fixture(autouse=True, scope="session")
def _identity() -> None:
    """Who the process is, without which Flower makes no message: a grid sets it."""
    SimulatedGrid(lambda jobs, timeout_s: iter(()), [])


@dataclass
class Witness:
    """Everything that the server's hooks were shown."""

    updates: dict[int, list[ModelUpdate]] = field(default_factory=dict)
    probed: dict[int, list[ModelUpdate]] = field(default_factory=dict)
    reports: dict[int, list[RoundReport]] = field(default_factory=dict)
    sums: dict[int, RevealedSum] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    attendances: list[Attendance] = field(default_factory=list)
    standings: dict[int, Standing] = field(default_factory=dict)
    answered_probes: list[int] = field(default_factory=list)
    ready: int = 0

    @property
    def weights(self) -> dict[int, Weights]:
        return {number: standing.weights for number, standing in self.standings.items()}

    @property
    def final(self) -> Weights:
        return self.weights[max(self.weights)]

    def hooks(self, probes: Sequence[TrainRequest]) -> ServerHooks:
        def on_ready() -> None:
            self.ready += 1

        def listener(updates: dict[int, list[ModelUpdate]]) -> Listener:
            return Listener(
                on_update=lambda update: updates.setdefault(update.round, []).append(update),
                on_report=lambda report: self.reports.setdefault(report.round, []).append(report),
                on_failure=self.failures.append,
                on_attendance=self.attendances.append,
                on_sum=lambda revealed: self.sums.update({revealed.update.round: revealed}),
            )

        def on_round(standing: Standing) -> None:
            assert standing.round not in self.standings
            self.standings[standing.round] = standing

        return ServerHooks(
            on_ready=on_ready,
            training=listener(self.updates),
            on_round=on_round,
            probes=lambda _: probes,
            probing=listener(self.probed),
            on_probe=self.answered_probes.append,
        )


@pytest.fixture
def settings(tmp_path: Path) -> AppSettings:
    return federation_of(SIZES, tmp_path)


@pytest.fixture
def ten(tmp_path: Path) -> AppSettings:
    """Ten hospitals that mask their updates: the sum survives the loss of three."""
    sizes = (20, 31, 12, 25, 18, 22, 15, 27, 19, 24)
    return replace(federation_of(sizes, tmp_path), secure_aggregation=True, on_failure="tolerate", local_steps=1)


def federation_of(sizes: Sequence[int], tmp_path: Path) -> AppSettings:
    """Hospitals that hold so many records each."""
    sites = []
    for i, size in enumerate(sizes):
        g = generator(0, "site", i)
        images, labels = torch.rand(size, 1, 12, 12, generator=g), torch.randint(0, 2, (size,), generator=g)
        shard = tmp_path / f"site-{i}.safetensors"
        write_shard(shard, Records(images=images, labels=labels))
        plan = plan_hospital(
            name=f"hospital-{i + 1:02d}",
            num_records=size,
            budget=PrivacyBudget(1e6, 1e-5),
            expected_batch=8,
            steps=ROUNDS * LOCAL_STEPS + PROBES,
            max_grad_norm=1.0,
        )
        sites.append(Site(plan=plan, shard=str(shard)))
    return AppSettings(
        seed=0,
        delta=1e-5,
        sites=tuple(sites),
        rounds=ROUNDS,
        local_steps=LOCAL_STEPS,
        local=LocalSettings(optimizer=OptimizerSettings("sgd", 0.1, 0.9), max_physical_batch=64),
        weighting="records",
        device="cpu",
        threads=1,
        round_timeout_s=120.0,
        secure_noise=False,
        replayable_batches=True,
    )


Runner = Callable[..., Witness]


@pytest.fixture
def run() -> Runner:
    def play(
        settings: AppSettings,
        *,
        engine: str = "inprocess",
        workers: int | None = 1,
        gpus: float = 0.0,
        address: str = "local",
        at_most: int = 1,
        probes: Sequence[TrainRequest] = (),
        start: Standing | None = None,
        simulated: Simulated | None = None,
    ) -> Witness:
        witness = Witness()
        text = settings.to_json()
        if start is None:
            start = Standing(0, initial_weights(build_model(SPEC), generator(settings.seed, "initial-weights")))
        run_federation(
            make_server_app(text, architecture=SPEC, start=start, hooks=witness.hooks(probes)),
            make_client_app(text),
            simulated=Simulated.fresh(settings) if simulated is None else simulated,
            engine=EngineSettings(engine, workers, 1, gpus, address=address, at_most=at_most),
        )
        return witness

    return play
