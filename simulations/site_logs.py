"""A readable log of each hospital: what came of every round that it was asked in.

These figures are the experimenter's view of a simulation. Losses, clipped shares, timings and what a traceback says are
not covered by the differential privacy of the updates; only epsilon and the steps follow from the public plan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.codec import RoundReport
from hbdp_fed.whole_files import write_whole

_SUFFIX = ".log"
_INDENT = "    "
_HEAD = re.compile(r"\S+ \S+  round (\d+)")
"""How an entry begins: date, time, round. What belongs to it further down is indented."""


@dataclass(frozen=True)
class Spent:
    """What a hospital has spent of its plan after a round.

    Attributes:
        steps: Training steps so far.
        steps_planned: Of so many.
        epsilon: What they cost, by the run's accountant.
    """

    steps: int
    steps_planned: int
    epsilon: float


def log_report(folder: Path, report: RoundReport, spent: Spent, *, kind: str) -> None:
    """Add an answer that is used to its hospital's log.

    Args:
        folder: Of all logs; made if it is not there.
        report: The answer.
        spent: What the hospital has spent, this round included.
        kind: ``train`` or ``probe``.
    """
    clipped = "-" if math.isnan(report.clipped_share) else f"{report.clipped_share:.1%}"
    words = (
        _spent(spent),
        f"loss {'-' if math.isnan(report.loss) else f'{report.loss:.4f}'}",
        f"clipped {clipped}",
        "- s" if math.isnan(report.seconds) else f"{report.seconds:.2f} s",
        f"{report.bytes:,} bytes",
    )
    _append(folder, report.hospital, f"{_head(report.round, kind)}  {'  '.join(words)}\n")


def log_failure(folder: Path, failure: Failure, spent: Spent, *, kind: str) -> None:
    """Add an answer that is not used to its hospital's log, with all that is known of the reason (see above)."""
    details = "".join(f"{_INDENT}{line}\n" for line in failure.details.strip().splitlines())
    entry = f"{_head(failure.round, kind)}  FAILED: {failure.kind}  {_spent(spent)}\n{details}"
    _append(folder, failure.hospital, entry)


def forget_after(folder: Path, round: int) -> None:
    """Leave out of all logs what came after a round, and a last line that was never finished.

    Args:
        folder: Of all logs; nothing happens where there is none.
        round: The last one that counts.
    """
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        text = path.read_text(encoding="utf-8")
        kept = "".join(_until(text.splitlines(keepends=True), round))
        if kept != text:
            write_whole(path, kept)


def _until(lines: Sequence[str], round: int) -> Iterator[str]:
    counts = False
    for line in lines:
        found = _HEAD.match(line)
        if found is not None:
            counts = int(found[1]) <= round
        if counts and line.endswith("\n"):
            yield line


def _head(number: int, kind: str) -> str:
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{now}  round {number:<4}{' (probe)' if kind == 'probe' else ''}"


def _spent(spent: Spent) -> str:
    return f"steps {spent.steps} of {spent.steps_planned}  epsilon {spent.epsilon:.4g}"


def _append(folder: Path, hospital: str, text: str) -> None:
    """Opened for this entry alone: a thousand hospitals would be a thousand open files."""
    folder.mkdir(exist_ok=True)
    with (folder / f"{hospital}{_SUFFIX}").open("a", encoding="utf-8") as file:
        file.write(text)
