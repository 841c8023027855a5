"""Measure what the engine adds to the hospitals' own work, beside Flower's stock simulation runtime.

    python scripts/bench/engine.py --hospitals 20 --rounds 20 --seconds 0.25 --workers 2

Every hospital trains the small CNN with DP-SGD on images of its own, as many steps a round as take --seconds alone.
That work is timed in this process first, then done by --workers processes of the engine ``ray``, then by Flower's
runtime with the very same apps. Efficiency is the time alone over (workers x the time of the rounds); start-up is what
comes before the first round, imports of this process not counted. Prints Markdown; the figures go to --output, too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hbdp_fed.data import Records, write_shard
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.codec import RoundReport
from hbdp_fed.federation.engine import EngineSettings, Simulated, run_federation
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import ServerHooks, Standing, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.federation.stock_flower import run_on_stock_flower
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.privacy import plan_hospital
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import ModelSpec, OptimizerSettings, PrivacyBudget

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2})
RECORDS, PIXELS, BATCH = 200, 28, 32


@dataclass
class Clock:
    """When things happened, and what the hospitals say they worked."""

    started: float = field(default_factory=time.perf_counter)
    ready: float = 0.0
    ended: float = 0.0
    compute: float = 0.0
    digest: str = ""

    def hooks(self) -> ServerHooks:
        """Hooks that only look at the clock."""

        def on_ready() -> None:
            self.ready = time.perf_counter()

        def on_report(report: RoundReport) -> None:
            self.compute += report.seconds

        def on_round(standing: Standing) -> None:
            self.ended = time.perf_counter()
            self.digest = weights_sha256(standing.weights)

        listener = Listener(on_update=lambda _: None, on_report=on_report, on_failure=lambda _: None)
        return ServerHooks(
            on_ready=on_ready,
            training=listener,
            on_round=on_round,
            probes=lambda _: (),
            probing=listener,
            on_probe=lambda _: None,
        )


def federation(folder: Path, *, hospitals: int, rounds: int, steps: int) -> AppSettings:
    """Equal hospitals with images on disk."""
    sites = []
    for place in range(hospitals):
        draw = generator(0, "bench", place)
        images = torch.rand(RECORDS, 1, PIXELS, PIXELS, generator=draw)
        labels = torch.randint(0, 2, (RECORDS,), generator=draw)
        shard = folder / f"{place}.safetensors"
        write_shard(shard, Records(images=images, labels=labels))
        plan = plan_hospital(
            name=f"hospital-{place:03d}",
            num_records=RECORDS,
            budget=PrivacyBudget(1e9, 1e-5),
            expected_batch=BATCH,
            steps=rounds * steps,
            max_grad_norm=1.0,
        )
        sites.append(Site(plan=plan, shard=str(shard)))
    return AppSettings(
        seed=0,
        delta=1e-5,
        sites=tuple(sites),
        rounds=rounds,
        local_steps=steps,
        local=LocalSettings(optimizer=OptimizerSettings("sgd", 0.1, 0.9), max_physical_batch=256),
        weighting="records",
        device="cpu",
        threads=1,
        round_timeout_s=3600.0,
        secure_noise=False,
        replayable_batches=True,
    )


def timed(settings: AppSettings, play: Callable[[Any, Any], None]) -> Clock:
    """The clock of one federation."""
    clock, text = Clock(), settings.to_json()
    start = Standing(0, initial_weights(build_model(SPEC), generator(0, "initial-weights")))
    server_app = make_server_app(text, architecture=SPEC, start=start, hooks=clock.hooks())
    play(server_app, make_client_app(text))
    return clock


def by_engine(settings: AppSettings, name: str, workers: int) -> Clock:
    """By one of the project's engines."""
    engine = EngineSettings(name=name, workers=workers, threads_per_client=1, gpus_per_client=0.0)
    return timed(
        settings,
        lambda server_app, client_app: run_federation(
            server_app, client_app, simulated=Simulated.fresh(settings), engine=engine
        ),
    )


def by_flower(settings: AppSettings, workers: int) -> Clock:
    """By Flower's own simulation runtime."""
    return timed(
        settings,
        lambda server_app, client_app: run_on_stock_flower(
            server_app, client_app, num_hospitals=len(settings.sites), workers=workers
        ),
    )


def steps_for(seconds: float, folder: Path) -> int:
    """Local steps that take about so long; the first round only warms up."""
    by_engine(federation(folder, hospitals=1, rounds=1, steps=5), "inprocess", 1)
    trial = by_engine(federation(folder, hospitals=2, rounds=2, steps=20), "inprocess", 1)
    return max(1, round(seconds / (trial.compute / (2 * 2 * 20))))


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One measured runtime a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = federation(
            folder, hospitals=given.hospitals, rounds=given.rounds, steps=steps_for(given.seconds, folder)
        )
        alone = by_engine(settings, "inprocess", 1)
        measured: Sequence[tuple[str, Callable[[], Clock]]] = (
            ("ray", lambda: by_engine(settings, "ray", given.workers)),
            ("stock Flower", lambda: by_flower(settings, given.workers)),
        )
        for title, play in measured:
            clock = play()
            rounds_s = clock.ended - clock.ready
            yield {
                "runtime": title,
                "hospitals": given.hospitals,
                "rounds": given.rounds,
                "workers": given.workers,
                "work_alone_s": alone.compute,
                "rounds_s": rounds_s,
                "startup_s": clock.ready - clock.started,
                "efficiency": alone.compute / (given.workers * rounds_s),
                "same_bits": clock.digest == alone.digest,
            }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hospitals", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/bench/engine.json"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = ("runtime", "work_alone_s", "rounds_s", "startup_s", "efficiency", "same_bits")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    found = []
    for row in rows(given):
        found.append(row)
        cells = [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        print(f"| {' | '.join(cells)} |", flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
