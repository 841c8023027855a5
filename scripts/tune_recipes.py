"""Search a data set's hyperparameters on its validation split, with the same effort for every budget.

    python scripts/tune_recipes.py --budgets 1 8 1e6 1e12 inf --trials 8 -- data=pneumoniamnist

Every budget tries the same points of a Sobol sequence over learning rate, expected batch and clipping norm, trains a
whole federation on each, and keeps the one with the best validation AUROC (or Dice) in the round that validation
chooses. The test split is never touched. The search sees private records without spending budget: it is outside
epsilon, as in the literature, and a real federation has to search on public data or account for it.

Prints one line a trial and, at the end, recipes for configs/data/<name>.yaml: the best over everything in --log.
Trials that are there already are not run again, so that an interrupted search goes on where it stopped, and a second
call with narrower ranges refines the first.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import qmc

from hbdp_fed.strict_json import dumps
from simulations.compose import compose_run, typed
from simulations.execute import execute
from simulations.prepare import prepare
from simulations.run_folder import RunFolder


class Silent:
    """A progress line that shows nothing."""

    def advance(self, note: str) -> None:
        pass

    def tell(self, line: str) -> None:
        """Nothing."""

    def say(self, note: str) -> None:
        pass


def points(
    trials: int, *, learning_rates: tuple[float, float], clipping_norms: tuple[float, float], batches: list[int]
) -> list[dict[str, float]]:
    """The points that every budget tries: logarithmic in learning rate and clipping norm."""

    def spread(low: float, high: float, share: float) -> float:
        return float(f"{math.exp(math.log(low) + share * math.log(high / low)):.3g}")

    # A power of two is drawn whole, as a Sobol sequence has to be, and cut.
    drawn = qmc.Sobol(d=3, seed=0).random_base2(math.ceil(math.log2(trials)))[:trials]
    return [
        {
            "learning_rate": spread(*learning_rates, u),
            "max_grad_norm": spread(*clipping_norms, v),
            "expected_batch": batches[int(w * len(batches))],
        }
        for u, v, w in drawn
    ]


def run_trial(eps: str, point: dict[str, float], overrides: list[str]) -> dict[str, Any]:
    """Train one federation; its validation figures."""
    settings = [f"training.{name}={value}" for name, value in point.items()]
    fixed = ["engine=inprocess", "federation.record=probes"]
    prepared = prepare(typed(compose_run([*fixed, f"eps={eps}", *settings, *overrides])))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        chosen, _ = execute(prepared, RunFolder(Path(folder)), Silent(), campaign=None)
    return {
        "eps": eps,
        **point,
        # No threshold enters into it, which makes it steadier than MCC on a few hundred records.
        "by": f"val_{prepared.task.selection[-1]}",
        "rounds": prepared.hyper.rounds,
        "local_steps": prepared.hyper.local_steps,
        "batch_per": prepared.hyper.batch_per,
        **{f"val_{name}": chosen.validation[name] for name in prepared.task.selection},
        "best_round": chosen.round,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1", "8", "1e6", "1e12", "inf"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--learning-rates", nargs=2, type=float, default=(0.02, 1.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--clipping-norms", nargs=2, type=float, default=(0.1, 3.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--log", type=Path, default=Path("runs/tune_recipes.jsonl"))
    parser.add_argument("overrides", nargs="*", help="settings of every trial, as in simulations.run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.log.read_text().splitlines() if arguments.log.exists() else []
    searched = ("learning_rate", "max_grad_norm", "expected_batch")
    done = {(line["eps"], *(line[key] for key in searched)): line for line in map(json.loads, lines)}
    for point in points(
        arguments.trials,
        learning_rates=arguments.learning_rates,
        clipping_norms=arguments.clipping_norms,
        batches=arguments.batches,
    ):
        for eps in arguments.budgets:
            if (eps, *point.values()) in done:
                continue
            result = run_trial(eps, point, arguments.overrides)
            done[(eps, *point.values())] = result
            with arguments.log.open("a") as file:
                file.write(dumps(result) + "\n")
            print(dumps(result), flush=True)
    print("recipes:")
    for eps in arguments.budgets:
        best = max((r for r in done.values() if r["eps"] == eps), key=lambda result: result[result["by"]] or 0.0)
        keys = ("eps", "rounds", "local_steps", *searched, "batch_per")
        print("  - {" + ", ".join(f"{key}: {best[key]}" for key in keys) + "}")


if __name__ == "__main__":
    main()
