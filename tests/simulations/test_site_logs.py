"""The log of each hospital: a line a round for people, trimmed like all books when a run goes on."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.codec import RoundReport
from simulations.site_logs import Spent, forget_after, log_failure, log_report

REPORT = RoundReport(
    hospital="hospital-01", round=3, status="ok", records=20, records_seen=16, steps=2, steps_spent=6, loss=0.69314,
    clipped_share=0.4375, noise_to_resolution=1e3, seconds=1.234, bytes=1234567,
)  # fmt: skip
SPENT = Spent(steps=6, steps_planned=41, epsilon=1.25e11)
TRACEBACK = "Traceback (most recent call last):\n  File x, line 1\n2026-01-01 00:00:00  round 1 of it\nValueError: no\n"


def lines(folder: Path, hospital: str = "hospital-01") -> list[str]:
    return (folder / f"{hospital}.log").read_text().splitlines()


def test_a_round_is_one_line_with_everything_that_is_known_of_it(tmp_path: Path) -> None:
    log_report(tmp_path / "logs", REPORT, SPENT, kind="train")
    log_report(tmp_path / "logs", replace(REPORT, loss=math.nan, clipped_share=math.nan), SPENT, kind="probe")
    train, probe = lines(tmp_path / "logs")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  round 3 ", train)
    for part in ("steps 6 of 41", "epsilon 1.25e+11", "loss 0.6931", "clipped 43.8%", "1.23 s", "1,234,567 bytes"):
        assert part in train
    for part in ("(probe)", "loss -", "clipped -"):
        assert part in probe


def test_a_failure_has_its_whole_traceback(tmp_path: Path) -> None:
    log_failure(tmp_path, Failure("hospital-01", 3, "exception", TRACEBACK), SPENT, kind="train")
    head, *details = lines(tmp_path)
    assert "round 3" in head
    assert "FAILED: exception" in head
    assert "steps 6 of 41" in head
    assert [line.removeprefix("    ") for line in details] == TRACEBACK.splitlines()


def test_rounds_that_are_computed_again_are_forgotten_with_their_tracebacks(tmp_path: Path) -> None:
    log_failure(tmp_path, Failure("hospital-01", 1, "exception", TRACEBACK), SPENT, kind="train")
    log_report(tmp_path, replace(REPORT, round=2), SPENT, kind="train")
    log_report(tmp_path, replace(REPORT, round=2, hospital="hospital-02"), SPENT, kind="train")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    log_failure(tmp_path, Failure("hospital-01", 3, "exception", TRACEBACK), SPENT, kind="train")
    log_report(tmp_path, replace(REPORT, round=12, hospital="hospital-02"), SPENT, kind="probe")
    with (tmp_path / "hospital-02.log").open("a") as file:
        file.write("2026-01-01 00:00:00  round 1 cut o")
    forget_after(tmp_path, 2)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == kept
    forget_after(tmp_path, 0)
    assert lines(tmp_path) == []


def test_no_folder_is_nothing_to_forget(tmp_path: Path) -> None:
    forget_after(tmp_path / "logs", 0)
    assert not (tmp_path / "logs").exists()


def test_a_thousand_hospitals_are_not_a_thousand_open_files(tmp_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    for i in range(1000):
        log_report(tmp_path, replace(REPORT, hospital=f"hospital-{i:04d}"), SPENT, kind="train")
    assert len(list(open_files.iterdir())) == before
    assert len(list(tmp_path.iterdir())) == 1000
