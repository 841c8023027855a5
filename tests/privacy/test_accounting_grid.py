"""Both accountants over the whole grid of budgets, sample rates, steps and deltas: answers, precision, time, memory.

The measurements are taken in a process of their own, by running this file as a script: peak memory is a process's.
A part of the grid belongs to the ordinary tests; the whole of it takes minutes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hbdp_fed.privacy import calibrate, epsilon, epsilon_interval

BUDGETS = (0.1, 1.0, 8.0, 32.0, 1e3, 1e4, 1e5, 1e6, 1e9, 1e12, 1e15)
SAMPLE_RATES = (1e-3, 0.01, 0.05, 0.25, 1.0)
STEPS = (1, 30, 2200, 53000)
DELTAS = (1e-5, 8e-7)
LEAST_BUDGET_BY_RDP = 0.2
"""In place of the smallest budget, which lies at the floor of the Renyi orders."""

EPSILON_SECONDS = {"tight": 1.0, "rdp": 0.5}
CALIBRATE_SECONDS = {"tight": 5.0, "rdp": 2.0}
MEMORY_BYTES = 1e9


class Point(NamedTuple):
    accountant: str
    eps: float
    sample_rate: float
    steps: int
    delta: float


class Measured(NamedTuple):
    """What was found at a point. Times are the process's own, not the wall's: others may use the machine too."""

    point: Point
    sigma: float
    epsilon: float
    lower: float
    upper: float
    calibrate_seconds: float
    epsilon_seconds: float

    @property
    def ratio(self) -> float:
        return self.upper / self.lower if self.lower > 0 else math.inf


class Grid(NamedTuple):
    rows: list[Measured]
    peak_bytes: float

    def by(self, accountant: str) -> list[Measured]:
        return [row for row in self.rows if row.point.accountant == accountant]


def points(which: str) -> list[Point]:
    """The whole grid, or a part: a diagonal through it, which meets every value, and one curve over all budgets."""
    chosen = []
    for accountant, stride in (("tight", 30), ("rdp", 15)):
        for (e, eps), (q, rate), (t, steps), (d, delta) in product(
            *(enumerate(values) for values in (BUDGETS, SAMPLE_RATES, STEPS, DELTAS))
        ):
            on_diagonal = (e + 3 * q + 5 * t + 7 * d) % stride == 0
            if which == "whole" or on_diagonal or (rate, steps, delta) == (0.05, 2200, 8e-7):
                at_least = LEAST_BUDGET_BY_RDP if accountant == "rdp" else 0.0
                chosen.append(Point(accountant, max(eps, at_least), rate, steps, delta))
    return chosen


def measured(point: Point) -> Measured:
    mechanism = {"sample_rate": point.sample_rate, "steps": point.steps, "delta": point.delta}
    begun = time.process_time()
    sigma = calibrate.__wrapped__(eps=point.eps, accountant=point.accountant, **mechanism)
    calibrated = time.process_time()
    spent = epsilon(noise_multiplier=sigma, accountant=point.accountant, **mechanism)
    answered = time.process_time()
    lower, upper = math.nan, math.nan
    if point.accountant == "tight":
        lower, upper = epsilon_interval(noise_multiplier=sigma, **mechanism)
    return Measured(point, sigma, spent, lower, upper, calibrated - begun, answered - calibrated)


def main(which: str) -> None:
    # What is computed once per process, such as tables and first calls, is no part of an answer's time.
    measured(Point("tight", 8.0, 0.05, 30, 1e-5))
    for point in points(which):
        print(json.dumps(measured(point)), flush=True)
    print(json.dumps(peak_bytes()))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands getrusage's figure on to a child: it would be that of the tests' own process.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


@pytest.fixture(scope="module", params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def grid(request: pytest.FixtureRequest) -> Grid:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), request.param],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, peak = map(json.loads, done.stdout.splitlines())
    rows = [Measured(Point(*point), *figures) for point, *figures in lines]
    assert [row.point for row in rows] == points(request.param)
    return Grid(rows, float(peak))


both = pytest.mark.parametrize("accountant", ["tight", "rdp"])


@both
def test_calibrated_noise_spends_the_budget_and_never_more(grid: Grid, accountant: str) -> None:
    broken = [row for row in grid.by(accountant) if not 0.999 * row.point.eps <= row.epsilon <= row.point.eps]
    assert not broken


@both
def test_noise_is_positive_and_falls_strictly_with_the_budget(grid: Grid, accountant: str) -> None:
    curves: dict[tuple[float, int, float], list[Measured]] = {}
    for row in grid.by(accountant):
        assert 0 < row.sigma < math.inf
        curves.setdefault((row.point.sample_rate, row.point.steps, row.point.delta), []).append(row)
    for curve in curves.values():
        in_order = sorted(curve, key=lambda row: row.point.eps)
        assert all(before.sigma > after.sigma for before, after in pairwise(in_order)), in_order
    assert any(len(curve) == len(BUDGETS) for curve in curves.values())


def test_the_interval_ends_at_the_tight_epsilon(grid: Grid) -> None:
    broken = [row for row in grid.by("tight") if not 0 <= row.lower <= row.upper == row.epsilon]
    assert not broken


def test_the_interval_is_within_a_percent_nearly_everywhere_and_within_five_percent_everywhere(grid: Grid) -> None:
    rows = grid.by("tight")
    assert np.mean([row.ratio <= 1.01 for row in rows]) >= 0.95
    assert not [row for row in rows if not row.ratio <= 1.05]


@both
def test_epsilon_and_calibration_answer_in_time(grid: Grid, accountant: str) -> None:
    late = [
        row
        for row in grid.by(accountant)
        if row.epsilon_seconds > EPSILON_SECONDS[accountant] or row.calibrate_seconds > CALIBRATE_SECONDS[accountant]
    ]
    assert not late


def test_the_answers_take_less_than_a_gigabyte(grid: Grid) -> None:
    assert grid.peak_bytes < MEMORY_BYTES


if __name__ == "__main__":
    main(sys.argv[1])
