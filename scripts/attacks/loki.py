"""Measure what LOKI rebuilds from the sum of many hospitals' answers, beside the imprint attack.

    HBDP_DATA=/path/to/data python -m scripts.attacks.loki
    python -m scripts.attacks.loki --data phantom --eps inf 1e9 --secure

Every line is a whole run of ``simulations.run`` (client apps, DP-SGD step, aggregation, audit): ten hospitals train for
one step, and then a probe asks each for one step on about eight records, so that the mean of their answers holds about
80. LOKI's planted layer has ``--bins`` rows for each hospital. The imprint attack stands beside it twice: with as many
rows in all as LOKI has for one hospital, and with as many as LOKI has for all of them. All attack the same records.
Rates are pooled over ``--probes``. Without noise the hospitals do not clip either, unless updates are summed securely,
which needs clipping. PneumoniaMNIST has to be there (HBDP_DATA); ``--data phantom`` needs nothing.

Standard output is one table, with a line as soon as its run is done: the share of records that were rebuilt (SSIM above
0.8 and above what public images and other patients score), the mean SSIM of what came back, the share that a guess from
public images brings above 0.8, that of records that were not in the batch, and what part of a record's gradient norm
the planted layer took. What the runs say goes to a log beside each one's folder. The exit code is 0, or that of the run
that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulations.run import main as start
from simulations.run_folder import read_summary

_RUN = (
    "engine=inprocess", "training.rounds=1", "training.local_steps=1", "model.width=8",
    "adversary.surfaces=[aggregate]", "evaluation.bootstrap=0", "evaluation.matrix=0", "report=md",
)  # fmt: skip

_COLUMNS = "{:<16} {:>6} {:<8} {:>6} {:>8} {:>8} {:>8} {:>9} {:>10} {:>8}"
_HEADER = ("data", "eps", "attack", "rows", "records", "rebuilt", "mean", "guess", "others", "share")


def main(given: Sequence[str] | None = None) -> int:
    """Print the table."""
    arguments = _parser().parse_args(given)
    print(_COLUMNS.format(*_HEADER), flush=True)
    with tempfile.TemporaryDirectory(prefix="hbdp_fed_loki_") as scratch:
        folder = arguments.folder or Path(scratch)
        for data in arguments.data:
            for eps in arguments.eps:
                for attack, bins, rows in _contenders(arguments.bins, arguments.clients):
                    path = folder / f"{data}_eps-{eps}_{attack}-{rows}"
                    code = _run([*_settings(arguments, data, eps), f"adversary.attack={attack}", bins], path)
                    if code:
                        return code
                    [entry] = read_summary(path)["risk"]["realistic"]["attacks"]
                    print(_COLUMNS.format(data, eps, attack, rows, *_cells(entry)), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["pneumoniamnist", "phantom"], help="names of data sets")
    parser.add_argument("--eps", nargs="+", default=["inf", "1e12", "1e9", "8"], help="budgets")
    parser.add_argument("--clients", type=int, default=10, help="hospitals")
    parser.add_argument("--batch", type=int, default=8, help="records that a hospital's step holds on average")
    parser.add_argument("--bins", type=int, default=128, help="rows of LOKI for each hospital")
    parser.add_argument("--probes", type=int, default=3, help="sums that each rate is pooled over")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    parser.add_argument("--secure", action="store_true", help="sum securely, with clipping at every budget")
    parser.add_argument("--folder", type=Path, help="where to keep the runs; without it they are thrown away")
    return parser


def _contenders(bins: int, clients: int) -> Iterator[tuple[str, str, int]]:
    """The attacks, the setting of their bins, and how many rows that makes."""
    yield "loki", f"adversary.bins={bins}", bins * clients
    yield "imprint", f"adversary.bins={bins}", bins
    yield "imprint", f"adversary.bins={bins * clients}", bins * clients


def _settings(arguments: argparse.Namespace, data: str, eps: str) -> list[str]:
    return [
        *_RUN,
        f"data={data}",
        f"eps={eps}",
        f"clients={arguments.clients}",
        f"training.expected_batch={arguments.batch}",
        f"adversary.probes={arguments.probes}",
        f"seed={arguments.seed}",
        f"federation.secure_aggregation={str(arguments.secure).lower()}",
        f"training.clip_without_noise={str(arguments.secure).lower()}",
        *(["data.num_train=2000"] if data == "phantom" else []),
    ]


def _run(settings: Sequence[str], folder: Path) -> int:
    """Run, with what the run says in its folder's log; the exit code."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        return start([*settings, f"run_dir={folder}"])


def _cells(entry: Mapping[str, Any]) -> Iterator[str]:
    yield str(entry["records"])
    for key in ("success_rate", "ssim_mean", "baseline_success_rate", "control_success_rate", "share"):
        yield "-" if entry[key] is None else f"{entry[key]:.3f}"


if __name__ == "__main__":
    sys.exit(main())
