"""Measure what many hospitals cost: memory by round, and wall time beside the hospitals' own work.

    python scripts/bench/scale.py --hospitals 100 1000 --asked 50 --rounds 20 --workers 2

Runs ``python -m simulations.run`` once for each number of hospitals, each hospital with --records records, --asked of
them in every round, so that all runs do the same work. Meanwhile the resident memory of every process of the run is
read ten times a second. Prints Markdown and writes to --folder: ``scale.json`` and, as a picture, memory by round.
Settings after ``--`` are handed on to the runs.

``over_work`` is the time of the rounds over (the hospitals' own seconds / workers): 1 would be an engine that costs
nothing. ``growth`` is how much the largest process of the last quarter of the rounds is above that of the second
quarter, in MiB; shared pages count in every process that maps them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from matplotlib.figure import Figure

MIB = 2**20
MEMORY: Mapping[str, str] = {"main": "the main process", "worker": "the largest other process"}
Samples = Mapping[int, Mapping[str, float]]
"""By round, the largest resident memory of the main process and of any other process, in MiB."""


def settings(given: argparse.Namespace, hospitals: int, folder: Path) -> list[str]:
    """What the main job is told: hospitals of equal size, the same number of them in every round."""
    return [
        f"clients={hospitals}",
        f"data.num_train={hospitals * given.records}",
        f"federation.participation={given.asked / hospitals}",
        f"training.rounds={given.rounds}",
        f"training.local_steps={given.steps}",
        f"training.expected_batch={given.records / 2}",
        "training.learning_rate=0.05",
        "training.max_grad_norm=1",
        "training.batch_per=hospital",
        "adversary.attack=none",
        "evaluation.bootstrap=0",
        f"engine.workers={given.workers}",
        f"run_dir={folder}",
        *given.overrides,
    ]


def watched(command: Sequence[str], folder: Path, log: Path) -> Samples:
    """Run the command to its end and look at its processes ten times a second.

    Raises:
        SystemExit: if it fails.
    """
    found: dict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(MEMORY, 0.0))
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        main = psutil.Process(process.pid)
        while process.poll() is None:
            done = len(list((folder / "checkpoints").glob("round-*"))) - 1
            for role, size in _sizes(main):
                found[max(done, 0)][role] = max(found[max(done, 0)][role], size / MIB)
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"the run ended with exit code {process.returncode}; see {log}")
    return found


def _sizes(main: psutil.Process) -> list[tuple[str, int]]:
    sizes = []
    # Whoever has ended in between has no size any more.
    with suppress(psutil.NoSuchProcess):
        for process in [main, *main.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                sizes.append(("main" if process.pid == main.pid else "worker", process.memory_info().rss))
    return sizes


def measured(given: argparse.Namespace, hospitals: int) -> tuple[dict[str, Any], Samples]:
    """One run's row, and its memory by round."""
    folder = given.folder / f"{hospitals}-hospitals"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "simulations.run", *settings(given, hospitals, folder)]
    samples = watched(command, folder, given.folder / f"{hospitals}-hospitals.log")
    spent = json.loads((folder / "summary.json").read_text())["time"]
    quarter = max(1, given.rounds // 4)
    early = [samples[number] for number in range(quarter, 2 * quarter) if number in samples]
    late = [samples[number] for number in range(given.rounds - quarter, given.rounds) if number in samples]
    row = {
        "hospitals": hospitals,
        "asked": given.asked,
        "rounds": given.rounds,
        "workers": given.workers,
        "startup_s": spent["startup_s"],
        "rounds_s": spent["rounds_s"],
        "work_s": spent["client_compute_s"],
        "over_work": spent["rounds_s"] * given.workers / spent["client_compute_s"],
        "total_s": spent["total_s"],
        **{f"{role}_mib": max(sample[role] for sample in samples.values()) for role in MEMORY},
        **{f"{role}_growth": max(s[role] for s in late) - max(s[role] for s in early) for role in MEMORY},
    }
    return row, samples


def picture(runs: Mapping[int, Samples]) -> Figure:
    """Memory by round, a panel a process and a line a run."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (role, title) in zip(figure.subplots(1, 2, sharey=True), MEMORY.items(), strict=True):
        for hospitals, samples in runs.items():
            rounds = sorted(samples)
            axes.plot(rounds, [samples[number][role] for number in rounds], label=f"{hospitals} hospitals")
        axes.set(title=title, xlabel="rounds done", ylim=(0, None))
        axes.legend()
    figure.axes[0].set_ylabel("resident memory (MiB)")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hospitals", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--asked", type=int, default=50, help="hospitals in every round")
    parser.add_argument("--records", type=int, default=20, help="of every hospital")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="local steps of every round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/scale"))
    parser.add_argument("overrides", nargs="*", help="settings of the runs, as in simulations.run")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    rows, runs = [], {}
    for hospitals in given.hospitals:
        row, runs[hospitals] = measured(given, hospitals)
        if not rows:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)
        rows.append(row)
    picture(runs).savefig(given.folder / "memory.png", dpi=150)
    by_round = {
        hospitals: {number: samples[number] for number in sorted(samples)} for hospitals, samples in runs.items()
    }
    (given.folder / "scale.json").write_text(json.dumps({"runs": rows, "memory_mib": by_round}, indent=2) + "\n")


if __name__ == "__main__":
    main()
