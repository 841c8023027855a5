"""The command that checks a ledger: what it prints, how it ends, and that the end is compared with the summary."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import simulations.cli
from hbdp_fed.privacy.ledger import ChargeEntry, Entry, Head, Ledger, PlanEntry, RefusalEntry
from simulations.ledger import main

Capture = pytest.CaptureFixture[str]


def plan(hospital: str, eps: float = 1e12) -> PlanEntry:
    return PlanEntry(
        hospital=hospital,
        records=200,
        noise_multiplier=0.25 if math.isfinite(eps) else 0.0,
        max_grad_norm=1.5,
        sample_rate=0.1,
        steps_planned=10,
        eps_planned=eps,
        delta=1e-5,
        accountant="rdp",
    )


def charge(hospital: str, round: int, eps: float, *, delivered: bool = True) -> ChargeEntry:
    return ChargeEntry(
        hospital=hospital,
        round=round,
        kind="train",
        noise_id=f"{hospital}/{round}",
        steps=3,
        steps_spent=3 * round,
        eps_spent=eps,
        delivered=delivered,
    )


ENTRIES: tuple[Entry, ...] = (
    plan("hospital-01"),
    plan("[bold]odd", math.inf),
    RefusalEntry("hospital-03", None, "busy"),
    charge("hospital-01", 1, 3.25e11),
    charge("[bold]odd", 1, math.inf),
    charge("hospital-01", 2, 6.5e11, delivered=False),
)


def write_run(folder: Path, entries: Sequence[Entry] = ENTRIES, *, summary: bool = True) -> Head:
    folder.mkdir()
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.extend(entries)
        head = ledger.head
    if summary:
        (folder / "summary.json").write_text(
            json.dumps({"schema": 1, "ledger": {"lines": head.count, "hash": head.hash}})
        )
    return head


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run")
    return tmp_path / "run"


def rows(shown: str) -> list[list[str]]:
    """The cells of the table's body."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[:1] == "│"]


def drop_lines(path: Path, start: int, stop: int | None) -> None:
    lines = path.read_text().splitlines(keepends=True)
    del lines[start:stop]
    path.write_text("".join(lines))


def test_an_intact_ledger_is_shown_with_every_hospitals_account(tmp_path: Path, capsys: Capture) -> None:
    head = write_run(tmp_path / "run")
    assert main(["verify", f"run={tmp_path / 'run'}"]) == 0
    shown, told = capsys.readouterr()
    assert rows(shown) == [
        ["hospital-01", "2", "1", "6 of 10", "6.5e+11 of 1e+12 per record", "0"],
        ["[bold]odd", "1", "0", "3 of 10", "inf of inf per record", "0"],
        ["hospital-03", "0", "0", "no plan", "no plan", "1"],
    ]
    for column in ("hospital", "rounds charged", "lost", "steps spent", "epsilon spent", "refusals"):
        assert column in shown
    assert shown.splitlines()[-1] == f"ledger intact: 6 lines, hash {head.hash}, end checked against summary.json"
    assert told == ""


def test_the_ways_to_name_it_are_the_same(run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = set()
    for name in (f"run={run}", f"{run}", f"{run}/ledger.jsonl", f"run={run}/ledger.jsonl"):
        assert main(["verify", name]) == 0
        outputs.add(capsys.readouterr().out)
    monkeypatch.chdir(run.parent)
    assert simulations.cli.main(["ledger", "verify", "run"]) == 0
    outputs.add(capsys.readouterr().out)
    assert len(outputs) == 1


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "eps=8")
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "eps=8"]) == main(["verify", "run=eps=8"]) == 0
    assert capsys.readouterr().out.count("end checked against summary.json") == 2


def test_without_a_kept_end_it_is_said_plainly(run: Path, tmp_path: Path, capsys: Capture) -> None:
    last = re.compile(
        r"ledger intact: 6 lines, hash [0-9a-f]{64}, end NOT checked: (.*), so lines may be missing there"
    )

    def reason(path: Path) -> str:
        assert main(["verify", str(path)]) == 0
        shown = capsys.readouterr().out
        assert "end checked against" not in shown
        match = last.fullmatch(shown.splitlines()[-1])
        assert match, shown
        return match[1]

    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((run / "ledger.jsonl").read_bytes())
    assert reason(copy) == "there is no summary.json beside it"
    (run / "summary.json").write_text('{"schema": 1}')
    assert reason(run) == "summary.json does not say how it ended"
    (run / "summary.json").unlink()
    assert reason(run) == "there is no summary.json beside it"


def broken(capsys: Capture, path: Path) -> str:
    assert main(["verify", str(path)]) == 1
    shown, told = capsys.readouterr()
    assert shown == "", "nothing of a broken ledger is shown as if it were true"
    assert told.count("\n") == 1
    return told.removeprefix("error: ").rstrip("\n")


def test_a_changed_line_is_exit_code_1_with_its_number(run: Path, capsys: Capture) -> None:
    file = run / "ledger.jsonl"
    content = file.read_text()
    file.write_text(content.replace("650000000000.0", "450000000000.0"))
    assert broken(capsys, run).startswith(f"{file}: line 6: was changed: its hash is ")
    file.write_text(content)
    drop_lines(file, 3, 4)
    assert broken(capsys, run) == (
        f"{file}: line 4: has seq 4 where 3 should follow: lines were dropped, inserted or moved here"
    )


def test_a_dropped_end_is_found_by_the_summary(run: Path, capsys: Capture) -> None:
    file = run / "ledger.jsonl"
    drop_lines(file, 4, None)
    told = f"{file}: line 5: is missing: 6 lines are expected, not 4"
    assert broken(capsys, run) == broken(capsys, file) == told
    # All of it.
    drop_lines(file, 0, None)
    assert broken(capsys, run) == f"{file}: line 1: is missing: 6 lines are expected, not 0"


def test_a_ledger_of_another_run_is_found_by_the_summary(run: Path, tmp_path: Path, capsys: Capture) -> None:
    write_run(
        tmp_path / "other", [plan("hospital-02"), *ENTRIES[1:3], *[RefusalEntry("a", n, "busy") for n in (1, 2, 3)]]
    )
    (run / "ledger.jsonl").write_bytes((tmp_path / "other/ledger.jsonl").read_bytes())
    assert "line 6: is not the line that is expected there" in broken(capsys, run)


def test_a_ledger_that_was_cut_off_is_broken_and_left_as_it_is(run: Path, capsys: Capture) -> None:
    file = run / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    before = file.read_bytes()
    assert broken(capsys, run) == f"{file}: line 6: was cut off: it has no newline at its end"
    assert file.read_bytes() == before


def test_a_ledger_without_a_chain_is_told_so(run: Path, capsys: Capture) -> None:
    (run / "ledger.jsonl").write_text('{"hospital": "hospital-01", "round": 1, "kind": "train"}\n')
    assert "line 1: has no seq, time, previous, hash" in broken(capsys, run)


def test_many_hospitals_are_counted_and_not_listed(tmp_path: Path, capsys: Capture) -> None:
    write_run(tmp_path / "run", [plan(f"hospital-{number:02d}") for number in range(1, 26)])
    assert main(["verify", str(tmp_path / "run")]) == 0
    found = rows(capsys.readouterr().out)
    assert len(found) == 21
    assert found[-1][0] == "... 5 more"


def test_an_empty_ledger_has_no_table(tmp_path: Path, capsys: Capture) -> None:
    write_run(tmp_path / "run", [])
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"ledger intact: 0 lines, hash {'0' * 64}, end checked against summary.json\n"


def refusal(capsys: Capture, *arguments: str) -> str:
    assert main(arguments) == 2
    shown, told = capsys.readouterr()
    assert shown == ""
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told.removeprefix("error: ").rstrip("\n")


def test_what_cannot_be_used_is_exit_code_2_and_one_line(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert refusal(capsys) == "there is no command; choose: verify"
    assert refusal(capsys, "repair", str(run)) == "'repair' is not a command; choose: verify"
    assert refusal(capsys, "verify").startswith("run: name one run folder or ledger file")
    assert refusal(capsys, "verify", str(run), str(run)).endswith("got 2")
    assert refusal(capsys, "verify", f"rnu={run}") == "rnu: there is no such setting; did you mean 'run'?"
    assert refusal(capsys, "verify", "run=") == "run: must not be empty"
    assert refusal(capsys, "verify", f"{tmp_path}/no") == (
        f"run: '{tmp_path}/no' does not exist; name a run folder or a ledger file"
    )
    assert refusal(capsys, "verify", str(tmp_path)) == f"run: {tmp_path} holds no ledger: there is no ledger.jsonl"


@pytest.mark.parametrize(
    "content",
    [
        "{", "3", "\xff", '{"ledger": 3}', '{"ledger": {"lines": 6}}', '{"ledger": {"lines": "6", "hash": "a"}}',
        '{"ledger": {"lines": true, "hash": "a"}}', '{"ledger": {"lines": -1, "hash": "a"}}',
        '{"ledger": {"lines": 6, "hash": 3}}', '{"ledger": null}',
    ],
)  # fmt: skip
def test_a_summary_that_is_none_is_exit_code_2(content: str, run: Path, capsys: Capture) -> None:
    (run / "summary.json").write_text(content, encoding="latin-1")
    assert refusal(capsys, "verify", str(run)) == (
        f"run: {run / 'summary.json'} is no run's summary: its ledger must have lines and hash"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["verify", "--help"]])
def test_help_tells_the_usage_and_the_exit_codes(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m simulations.ledger verify RUN_OR_FILE")
    assert "exit codes: 0 intact, 1 broken, 2 there is no such ledger" in shown


def test_the_exit_code_reaches_the_shell(run: Path) -> None:
    drop_lines(run / "ledger.jsonl", 0, 1)
    done = subprocess.run(
        [sys.executable, "-m", "simulations.ledger", "verify", f"run={run}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {run / 'ledger.jsonl'}: line 1: has seq 1 where 0 should follow")
