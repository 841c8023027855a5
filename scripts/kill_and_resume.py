"""Kill a run at random moments and go on with it each time: the end must be that of the run that nobody disturbed.

    python scripts/kill_and_resume.py --kills 10
    python scripts/kill_and_resume.py --kills 3 -- engine=inprocess clients=4 training.rounds=12

First a run is left alone and timed. Then the same run is started in another folder, and the main process is ended by
SIGKILL after a random share of that time, again and again; each time it is resumed. At the end the released model and
the privacy ledger (but for its times) have to be the same. Exit code 0 if they are, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hbdp_fed.privacy.ledger import verify


def started(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The main job in a process of its own."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "simulations.run", *arguments], stdout=file, stderr=subprocess.STDOUT
        )


def finished(arguments: Sequence[str], log: Path) -> float:
    """Seconds that a run takes which nobody disturbs."""
    begun = time.perf_counter()
    code = started(arguments, log).wait()
    if code:
        sys.exit(f"the run ended with exit code {code}; see {log}")
    return time.perf_counter() - begun


def outcome(folder: Path) -> dict[str, object]:
    """What has to be the same."""
    summary = json.loads((folder / "summary.json").read_text())
    head = verify(folder / "ledger.jsonl").head
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return {
        "model_sha256": summary["model_sha256"],
        "ledger": [head.count, head.hash],
        "rounds": [(line["hospital"], line["round"]) for line in map(json.loads, lines)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=Path("runs/kill_and_resume"))
    parser.add_argument("overrides", nargs="*", help="settings of the run, as in simulations.run")
    given = parser.parse_args(arguments)
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    alone, killed, log = given.folder / "undisturbed", given.folder / "killed", given.folder / "log.txt"
    seconds = finished([*given.overrides, f"run_dir={alone}"], log)
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    moments, draw = 0, random.Random(given.seed)
    next_one = [*given.overrides, f"run_dir={killed}"]
    while moments < given.kills:
        process = started(next_one, log)
        try:
            process.wait(timeout=draw.uniform(0.1, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments += 1
            done = len(list((killed / "checkpoints").glob("round-*"))) - 1 if killed.exists() else -1
            print(f"kill {moments}: {max(done, 0)} rounds were done", flush=True)
        else:
            # It was quicker than the clock: from the beginning again, with the kills that are left.
            shutil.rmtree(killed)
        exists = (killed / "config.yaml").exists()
        if killed.exists() and not exists:
            shutil.rmtree(killed)
        next_one = [f"resume={killed}"] if exists else [*given.overrides, f"run_dir={killed}"]
    finished(next_one, log)
    first, second = outcome(alone), outcome(killed)
    different = [name for name in first if first[name] != second[name]]
    print(
        f"different: {', '.join(different)}"
        if different
        else f"the same after {moments} kills: {first['model_sha256']}"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
