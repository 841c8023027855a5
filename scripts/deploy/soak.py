"""A federation that is left to itself for an hour while its hospitals are stopped and killed at random.

Whether it holds: every round is there and counted, no hospital was charged twice, and neither memory nor open files of
any process that stays grow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from hbdp_fed.privacy.ledger import verify
from scripts.deploy.federation import Federation, found
from scripts.deploy.rehearse import POLICY
from scripts.deploy.site import Hospital
from simulations.program import INTERRUPTED, OK

SETTINGS = (
    "clients=3", "eps=1e9", "data.num_train=120", "data.num_val=60", "data.num_test=60", "model.width=4",
    "training.local_steps=1", "training.expected_batch=16", "adversary.attack=none", "evaluation.bootstrap=0",
    "evaluation.every=20", "federation.on_failure=tolerate", "federation.round_timeout_s=300",
    "federation.save_every=20", "federation.record=probes", "federation.checkpoints=2",
)  # fmt: skip

_AWAY_S, _CALM_S = (5.0, 45.0), (10.0, 60.0)
_SAMPLE_S = 10.0
_GROWTH_ALLOWED = 0.10
_SLACK = {"MiB": 16.0, "files": 8.0}


@dataclass
class Watch:
    """Memory and open files of the processes that stay, over time.

    Attributes:
        series: By process, samples of (seconds, MiB of resident memory, open files); begun anew where it restarted.
    """

    series: dict[str, list[tuple[float, float, int]]] = field(default_factory=lambda: defaultdict(list))

    def look(self, at: float, named: dict[str, int | None]) -> None:
        """Take a sample of each process that runs."""
        for name, number in named.items():
            with suppress(psutil.Error):
                if number is not None:
                    process = psutil.Process(number)
                    memory = process.memory_info().rss / 2**20
                    self.series[f"{name} ({number})"].append((at, memory, process.num_fds()))

    def growth(self) -> Iterator[tuple[str, str, float, float]]:
        """Of each process that lasted: its name, what was measured, and the medians of its second and last quarters."""
        for name, samples in self.series.items():
            if len(samples) < 20:
                continue
            quarter = len(samples) // 4
            for place, what in ((1, "MiB"), (2, "files")):
                values = [sample[place] for sample in samples]
                yield name, what, statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if everything held, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m scripts.deploy.soak", description=__doc__)
    parser.add_argument("folder", type=Path, help="of everything; whatever a soak left there is removed")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of who is stopped when")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    settings = [*SETTINGS, f"training.rounds={given.rounds}"]
    federation = found(folder, settings, replace(POLICY, lowest_records=1))
    watch = Watch()
    try:
        federation.start()
        stops = _soak(federation, settings, watch, minutes=given.minutes, chance=random.Random(given.seed))
    finally:
        federation.stop()
    result = judged(federation, watch, stops)
    (folder / "soak.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "samples.json").write_text(json.dumps(watch.series) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


def _soak(
    federation: Federation, settings: Sequence[str], watch: Watch, *, minutes: float, chance: random.Random
) -> Counter[str]:
    """Let a run go on until its time is up, and hospitals come and go. Returns how they went."""
    run_dir = f"run_dir={federation.folder / 'run'}"
    command = [sys.executable, "-m", "simulations.run", *settings, *federation.settings, run_dir]
    stops: Counter[str] = Counter()
    begun = sampled = time.monotonic()
    away: dict[str, float] = {}
    next_stop = begun + chance.uniform(*_CALM_S)
    with (federation.folder / "run.log").open("wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while run.poll() is None and time.monotonic() - begun < 60 * minutes:
                now = time.monotonic()
                for hospital in federation.hospitals:
                    if away.get(hospital.name, now) < now:
                        del away[hospital.name]
                        federation.start_hospital(hospital)
                if now >= next_stop and len(away) < len(federation.hospitals) - 1:
                    hospital = _chosen(federation, away, chance)
                    kill = chance.random() < 0.5
                    hospital.stop(kill=kill)
                    stops["killed" if kill else "stopped"] += 1
                    away[hospital.name] = now + chance.uniform(*_AWAY_S)
                    next_stop = now + chance.uniform(*_CALM_S)
                if now - sampled >= _SAMPLE_S:
                    watch.look(now - begun, _processes(federation, run.pid))
                    sampled = now
                time.sleep(0.5)
        finally:
            if run.poll() is None:
                os.kill(run.pid, signal.SIGTERM)
            run.wait(timeout=600)
    stops["minutes"] = round((time.monotonic() - begun) / 60)
    # Interrupted when the time was up, or done: anything else ended it before.
    stops["ended"] = run.returncode
    return stops


def _chosen(federation: Federation, away: dict[str, float], chance: random.Random) -> Hospital:
    return chance.choice([hospital for hospital in federation.hospitals if hospital.name not in away])


def _processes(federation: Federation, run: int) -> dict[str, int | None]:
    """The processes that stay: the SuperLink, its server app, the SuperNodes that are up, and whoever follows."""
    superlink = federation.server.process.number
    found_ones: dict[str, int | None] = {"superlink": superlink, "run": run}
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "flwr-serverapp" in words and str(federation.server.port) in words:
            found_ones["server app"] = process.info["pid"]
        for hospital in federation.hospitals:
            if "flower-supernode" in words and str(hospital.folder) in words and not words.startswith("/bin/sh"):
                found_ones[hospital.name] = process.info["pid"]
    return found_ones


def judged(federation: Federation, watch: Watch, stops: Counter[str]) -> dict[str, object]:
    """What the soak came to, and whether it held."""
    lines = [json.loads(line) for line in (federation.folder / "run" / "rounds.jsonl").read_text().splitlines()]
    rounds = Counter(line["round"] for line in lines if line["status"] == "ok")
    last = max(rounds, default=0)
    lost = [number for number in range(1, last + 1) if not rounds[number]]
    twice = [name for name in _ledgers(federation) if _charged_twice(federation, name)]
    grown = [
        f"{name}: {before:.0f} to {after:.0f} {what}"
        for name, what, before, after in watch.growth()
        if after > before * (1 + _GROWTH_ALLOWED) and after > before + _SLACK[what]
    ]
    return {
        "held": stops["ended"] in (OK, INTERRUPTED) and last > 0 and not lost and not twice and not grown,
        "rounds": last,
        "rounds_lost": lost,
        "answers": Counter(line["status"] if line["status"] != "failed" else line["failure"] for line in lines),
        "hospitals_stopped": stops,
        "charged_twice": twice,
        "grown": grown,
        "growth": {f"{name}, {what}": [before, after] for name, what, before, after in watch.growth()},
    }


def _ledgers(federation: Federation) -> list[str]:
    return [hospital.name for hospital in federation.hospitals]


def _charged_twice(federation: Federation, name: str) -> bool:
    """Whether a hospital's own ledger holds more steps than rounds, or is not intact, or the server's charges less."""
    (file,) = (federation.folder / name / "site" / "agreements").glob("*/ledger.jsonl")
    own = verify(file).accounts[name]
    told = verify(federation.folder / "run" / "ledger.jsonl").accounts[name]
    return own.steps_spent != own.rounds or told.steps_spent < own.steps_spent - 1


if __name__ == "__main__":
    sys.exit(main())
