"""Compare FedAvg, FedProx and SCAFFOLD over several seeds on one division of the data, and print one table.

    HBDP_DATA=/path/to/data python scripts/compare_strategies.py --seeds 0 1 2
    python scripts/compare_strategies.py --mu 0.01 0.1 --folder runs/phantom -- data=phantom training.rounds=10

Every run is a full ``simulations.run`` in --folder, by default of five hospitals with very different shares of
PneumoniaMNIST's classes (Dirichlet with alpha 0.1) and no attack; what follows ``--`` is set in all of them. One that
has its summary already is not run again, so that an interrupted comparison goes on where it stopped.

FedProx's mu is chosen on validation: the best mean over seeds of the figure that data set's models are chosen by. The
table shows the released models on the test split, mean and standard deviation over seeds, and the difference to FedAvg,
taken seed by seed: runs of one seed share the division, the starting weights and the noise. Printed as Markdown, and
written as FOLDER/strategies.json.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbdp_fed.audit import wording
from hbdp_fed.strict_json import dumps
from simulations.run import main as start
from simulations.run_folder import read_summary

Summary = Mapping[str, Any]

DEFAULTS = (
    "data=pneumoniamnist", "clients=5", "partition.scheme=dirichlet", "partition.alpha=0.1", "adversary.attack=none",
)  # fmt: skip
FEDAVG, FEDPROX, SCAFFOLD = "FedAvg", "FedProx", "SCAFFOLD"


@dataclass(frozen=True)
class Strategy:
    """One of those that are compared.

    Attributes:
        name: What people read.
        folder: Of its runs, in the folder of all.
        settings: What sets it apart from FedAvg.
        runs: The summaries of its seeds.
    """

    name: str
    folder: str
    settings: tuple[str, ...] = ()
    runs: tuple[Summary, ...] = ()


def strategies(grid: Sequence[float]) -> list[Strategy]:
    """Everything that is run: FedProx once for every mu."""
    return [
        Strategy(FEDAVG, "fedavg"),
        *(Strategy(f"{FEDPROX}, mu={mu:g}", f"fedprox_mu-{mu:g}", (f"training.proximal={mu:g}",)) for mu in grid),
        Strategy(SCAFFOLD, "scaffold", ("training.correction=scaffold",)),
    ]


def finished(folder: Path, eps: str, seed: int, overrides: Sequence[str]) -> Summary:
    """The summary of one run, which is started if it is not there."""
    path = folder / f"eps-{eps}_seed-{seed}"
    if not (path / "summary.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        code = start([f"eps={eps}", f"seed={seed}", f"run_dir={path}", *overrides])
        if code:
            sys.exit(code)
    return read_summary(path)


def values(runs: Sequence[Summary], name: str, *, of: str = "utility") -> list[float]:
    """A figure of each run; NaN where a run does not have it."""
    return [wording.number(run[of].get(name)) for run in runs]


def on_validation(strategy: Strategy) -> float:
    """The mean over seeds of the steadiest figure by which rounds are chosen; worst where a run has none."""
    name = wording.selection_of(strategy.runs[0])[-1]
    mean = float(np.mean(values(strategy.runs, name, of="utility_validation")))
    return -np.inf if np.isnan(mean) else mean


def chosen(found: Sequence[Strategy]) -> list[Strategy]:
    """The same with one FedProx: the best on validation, the smaller mu of equal ones."""
    proximal = [strategy for strategy in found if strategy.name.startswith(FEDPROX)]
    best = max(proximal, key=on_validation, default=None)
    return [strategy for strategy in found if strategy not in proximal or strategy is best]


def differences(strategy: Strategy, baseline: Strategy, name: str) -> list[float]:
    """Strategy minus baseline, seed by seed."""
    return [own - other for own, other in zip(values(strategy.runs, name), values(baseline.runs, name), strict=True)]


def paired(name: str, found: Sequence[float]) -> str:
    """``+0.012 ± 0.004``: mean and standard deviation of differences."""
    mean, *deviation = wording.over_runs(name, found).split(" ± ")
    return " ± ".join([wording.signed(name, float(np.mean(found))) if mean != "-" else mean, *deviation])


def table(compared: Sequence[Strategy], metrics: Sequence[str]) -> Iterator[str]:
    """The lines of the Markdown table; the first strategy is the baseline."""
    baseline = compared[0]
    by = wording.selection_of(baseline.runs[0])[-1]
    labels = [wording.label(name) for name in metrics]
    columns = ["strategy", f"{wording.label(by)} (validation)", *(f"{label} (test)" for label in labels)]
    columns += [f"{label} - {baseline.name}'s" for label in labels]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for strategy in compared:
        cells = [strategy.name, wording.over_runs(by, values(strategy.runs, by, of="utility_validation"))]
        cells += [wording.over_runs(name, values(strategy.runs, name)) for name in metrics]
        cells += [
            "" if strategy is baseline else paired(name, differences(strategy, baseline, name)) for name in metrics
        ]
        yield f"| {' | '.join(cells)} |"


def plain(everything: Sequence[Strategy], compared: Sequence[Strategy], metrics: Sequence[str]) -> dict[str, Any]:
    """What ``strategies.json`` holds: every run's figures, and which strategies stand in the table."""
    return {
        "metrics": list(metrics),
        "compared": [strategy.name for strategy in compared],
        "strategies": [
            {
                "name": strategy.name,
                "settings": list(strategy.settings),
                "validation": on_validation(strategy),
                "runs": [
                    {
                        "seed": run["seed"],
                        "model_sha256": run["model_sha256"],
                        "validation": run["utility_validation"],
                        "test": {name: run["utility"].get(name) for name in metrics},
                    }
                    for run in strategy.runs
                ],
            }
            for strategy in everything
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--eps", default="1e9")
    parser.add_argument("--mu", nargs="*", type=float, default=[0.001, 0.01, 0.1, 1.0], help="of FedProx")
    parser.add_argument("--folder", type=Path, default=Path("runs/compare_strategies"))
    parser.add_argument(
        "--metrics", nargs="+", default=["auroc", "mcc"], metavar="METRIC", help=f"among {', '.join(wording.METRICS)}"
    )
    parser.add_argument("overrides", nargs="*", help="settings of every run, as in simulations.run")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.metrics if not wording.is_metric(name)]
    if unknown:
        parser.error(f"--metrics: there is no {', '.join(unknown)}; there are {', '.join(wording.METRICS)}")
    set_by_hand = {text.split("=", 1)[0] for text in given.overrides}
    shared = [text for text in DEFAULTS if text.split("=", 1)[0] not in set_by_hand] + given.overrides
    everything = [
        Strategy(
            one.name,
            one.folder,
            one.settings,
            tuple(
                finished(given.folder / one.folder, given.eps, seed, [*shared, *one.settings]) for seed in given.seeds
            ),
        )
        for one in strategies(sorted(given.mu))
    ]
    compared = chosen(everything)
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "strategies.json"
    path.write_text(dumps(plain(everything, compared, given.metrics), indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(compared, given.metrics)))


if __name__ == "__main__":
    main()
