"""Measure what the engine adds to the hospitals' own work, beside Flower's stock simulation runtime.

    python scripts/bench/engine.py --hospitals 20 --rounds 20 --seconds 0.25 --workers 2

Every hospital trains the small CNN with DP-SGD on images of its own, as many steps a round as take --seconds alone.
That work is timed alone, in one process; then done by --workers processes that know nothing of each other, each with
its part of the hospitals; then by as many processes of the engine ``ray``; then by Flower's runtime with the very same
apps. Processors that share memory and heat are slower together than alone, whatever runs on them: separate processes
show what this machine gives to an engine that costs nothing. All of it --repeats times in turn, as machines are noisy.

Efficiency is the time alone, as the mean of before and after, over (workers x the time of the rounds), both without the
first round, in which processes warm up. *busy* is the same with the seconds that the hospitals worked in the very run:
what the processors lose together does not count against the engine there. Start-up is what comes before the first
round, imports of this process not counted. Prints Markdown with medians; the figures of every turn go to --output.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
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
SEPARATE, ENGINE, STOCK = "separate processes", "ray", "stock Flower"


@dataclass
class Clock:
    """When things happened, and what the hospitals say they worked."""

    started: float = field(default_factory=time.perf_counter)
    ready: float = 0.0
    ended: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=lambda: [0.0])
    digest: str = ""

    @property
    def rounds_s(self) -> float:
        """Of all rounds but the first, in which processes warm up."""
        return self.ended[-1] - self.ended[1]

    @property
    def work_s(self) -> float:
        """What the hospitals say they worked in these rounds."""
        return sum(self.compute[1:])

    def hooks(self) -> ServerHooks:
        """Hooks that only look at the clock."""

        def on_ready() -> None:
            self.ready = time.perf_counter()

        def on_report(report: RoundReport) -> None:
            self.compute[-1] += report.seconds

        def on_round(standing: Standing) -> None:
            self.ended.append(time.perf_counter())
            if standing.round > 0:
                self.compute.append(0.0)
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
    return max(1, round(seconds / (trial.work_s / (2 * 20))))


def apart(settings: AppSettings, workers: int) -> float:
    """Seconds of the slowest of so many processes, each of which plays its part of the hospitals by itself."""
    parts = [replace(settings, sites=settings.sites[place::workers]) for place in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_together) as pool:
        list(pool.map(_nothing, range(workers)))
        return max(pool.map(_own_seconds, parts))


def _begin_together() -> None:
    """First calls before anything is timed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        by_engine(federation(Path(name), hospitals=1, rounds=1, steps=5), "inprocess", 1)


def _nothing(_: int) -> None:
    """Long enough that every process gets one of them, and has begun."""
    time.sleep(2)


def _own_seconds(settings: AppSettings) -> float:
    clock = by_engine(settings, "inprocess", 1)
    return clock.rounds_s


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One measured runtime a row, all of them in every turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = federation(
            folder, hospitals=given.hospitals, rounds=given.rounds, steps=steps_for(given.seconds, folder)
        )
        before = by_engine(settings, "inprocess", 1)
        for turn in range(given.repeats):
            separate_s = apart(settings, given.workers)
            engine = by_engine(settings, "ray", given.workers)
            stock = by_flower(settings, given.workers)
            after = by_engine(settings, "inprocess", 1)
            alone = (before.work_s + after.work_s) / 2
            figures = (
                (SEPARATE, separate_s, given.workers * separate_s, 0.0, after.digest),
                (ENGINE, engine.rounds_s, engine.work_s, engine.ready - engine.started, engine.digest),
                (STOCK, stock.rounds_s, stock.work_s, stock.ready - stock.started, stock.digest),
            )
            for title, rounds_s, work_s, startup_s, digest in figures:
                yield {
                    "runtime": title,
                    "turn": turn,
                    "hospitals": given.hospitals,
                    "rounds": given.rounds,
                    "workers": given.workers,
                    "work_alone_s": alone,
                    "rounds_s": rounds_s,
                    "startup_s": startup_s,
                    "efficiency": alone / (given.workers * rounds_s),
                    "busy": work_s / (given.workers * rounds_s),
                    "same_bits": digest == before.digest,
                }
            before = after


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The medians over turns, as Markdown."""
    columns = ("work_alone_s", "rounds_s", "startup_s", "efficiency", "busy")
    lines = [f"| runtime | {' | '.join(columns)} | same_bits |", f"|{'---|' * (len(columns) + 2)}"]
    for title in (SEPARATE, ENGINE, STOCK):
        own = [row for row in found if row["runtime"] == title]
        cells = [f"{median(row[name] for row in own):.2f}" for name in columns]
        lines.append(f"| {title} | {' | '.join(cells)} | {all(row['same_bits'] for row in own)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hospitals", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/bench/engine.json"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = []
    for row in rows(given):
        found.append(row)
        print(f"turn {row['turn'] + 1}: {row['runtime']}: {row['efficiency']:.3f}", flush=True)
    print(table(found))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
