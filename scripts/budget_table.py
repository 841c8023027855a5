"""Run the main job over budgets and seeds and print one table: what each budget costs in utility and in risk.

    python scripts/budget_table.py --budgets 1 8 1e6 1e12 inf --seeds 0 1 2 -- data=pneumoniamnist clients=5
    python scripts/budget_table.py --metrics auroc mcc accuracy -- data=pneumoniamnist clients=5

Every run is a full ``simulations.run`` in --folder; one that has its summary already is not run again, so that an
interrupted table goes on where it stopped. Prints the table as Markdown: means over the seeds, with the standard
deviation over seeds for utility, and, where an attack ran, the attacked records of all seeds pooled for risk. The
columns of utility are the first three metrics of the data set's task, or those of --metrics.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hbdp_fed.audit import wording
from simulations.run import main as run
from simulations.run_folder import read_summary

METRICS = 3
RISKS = {"records rebuilt": "success_rate", "controls": "control_success_rate"}


def finished(folder: Path, budget: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The summary of one run, which is started if it is not there."""
    path = folder / f"eps-{budget}_seed-{seed}"
    if not (path / "summary.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        code = run([f"eps={budget}", f"seed={seed}", f"run_dir={path}", *overrides])
        if code:
            sys.exit(code)
    return read_summary(path)


def pooled(attacks: Sequence[Mapping[str, Any]], rate: str) -> str:
    """A rate over the records of all seeds."""
    known = [attack for attack in attacks if attack[rate] is not None]
    records = sum(attack["records"] for attack in known)
    return f"{sum(attack[rate] * attack['records'] for attack in known) / records:.1%}" if records else "-"


def attacks_of(summaries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The realistic attacks of all these runs."""
    return [attack for summary in summaries for attack in summary["risk"]["realistic"]["attacks"]]


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]) -> Iterator[str]:
    """The lines of the Markdown table.

    Args:
        runs: By budget, the summaries of its seeds.
        metrics: What to show of utility; without any, the first three of the first summary.
    """
    everything = [summary for summaries in runs.values() for summary in summaries]
    shown = list(metrics) or wording.metrics_of(everything[0])[:METRICS]
    units = everything[0].get("units")
    risks = RISKS if attacks_of(everything) else {}
    columns = ["eps", "sigma", *(wording.label(name, units) for name in shown), *risks]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for budget, summaries in runs.items():
        cells = [
            budget,
            f"{summaries[0]['privacy']['hospitals'][0]['noise_multiplier']:.3g}",
            *(wording.over_runs(name, [summary["utility"].get(name) for summary in summaries]) for name in shown),
            *(pooled(attacks_of(summaries), rate) for rate in risks.values()),
        ]
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1", "8", "1e6", "1e12", "inf"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/budget_table"))
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="METRIC", help=f"among {', '.join(wording.METRICS)}, or dice_1 etc."
    )
    parser.add_argument("overrides", nargs="*", help="settings of every run, as in simulations.run")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.metrics if not wording.is_metric(name)]
    if unknown:
        parser.error(f"--metrics: there is no {', '.join(unknown)}; there are {', '.join(wording.METRICS)}")
    runs = {
        budget: [finished(given.folder, budget, seed, given.overrides) for seed in given.seeds]
        for budget in given.budgets
    }
    print("\n".join(table(runs, given.metrics)))


if __name__ == "__main__":
    main()
