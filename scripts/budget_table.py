"""Run the main job over budgets and seeds and print one table: what each budget costs in utility and in risk.

    python scripts/budget_table.py --budgets 1 8 1e6 1e12 inf --seeds 0 1 2 -- data=pneumoniamnist clients=5

Every run is a full ``simulations.run`` in --folder; one that has its summary already is not run again, so that an
interrupted table goes on where it stopped. Prints the table as Markdown: means over the seeds, with the standard
deviation over seeds for utility, and the attacked records of all seeds pooled for risk.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from simulations.run import main as run
from simulations.run_folder import read_summary


def finished(folder: Path, budget: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The summary of one run, which is started if it is not there."""
    path = folder / f"eps-{budget}_seed-{seed}"
    if not (path / "summary.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        code = run([f"eps={budget}", f"seed={seed}", f"run_dir={path}", *overrides])
        if code:
            sys.exit(code)
    return read_summary(path)


def spread(values: list[float | None]) -> str:
    """Mean and standard deviation over seeds; a figure that some seed does not have is not averaged."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "-"
    deviation = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.3f}{deviation}"


def pooled(attacks: list[dict[str, Any]], rate: str) -> str:
    """A rate over the records of all seeds."""
    known = [attack for attack in attacks if attack[rate] is not None]
    records = sum(attack["records"] for attack in known)
    return f"{sum(attack[rate] * attack['records'] for attack in known) / records:.1%}" if records else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1", "8", "1e6", "1e12", "inf"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/budget_table"))
    parser.add_argument("overrides", nargs="*", help="settings of every run, as in simulations.run")
    arguments = parser.parse_args()
    rows = []
    for budget in arguments.budgets:
        summaries = [finished(arguments.folder, budget, seed, arguments.overrides) for seed in arguments.seeds]
        utilities = [summary["utility"] for summary in summaries]
        attacks = [attack for summary in summaries for attack in summary["risk"]["realistic"]["attacks"]]
        sigma = summaries[0]["privacy"]["hospitals"][0]["noise_multiplier"]
        rows.append(
            f"| {budget} | {sigma:.3g} | {spread([u['auroc'] for u in utilities])} | "
            f"{spread([u['mcc'] for u in utilities])} | {spread([u['accuracy'] for u in utilities])} | "
            f"{pooled(attacks, 'success_rate')} | {pooled(attacks, 'control_success_rate')} |"
        )
    print("| eps | sigma | AUROC | MCC | accuracy | records rebuilt | controls |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
