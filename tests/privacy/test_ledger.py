"""The ledger shows every change, charges a repetition once, and its hashes can be computed by hand."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbdp_fed.privacy.ledger import (
    Account,
    ChargeEntry,
    Entry,
    Head,
    Ledger,
    LedgerError,
    PlanEntry,
    RefusalEntry,
    line_hash,
    verify,
)

PLANNED = 10


def plan(hospital: str = "hospital-01", **changes: Any) -> PlanEntry:
    entry = PlanEntry(
        hospital=hospital,
        records=200,
        noise_multiplier=0.25,
        max_grad_norm=1.5,
        sample_rate=0.1,
        steps_planned=PLANNED,
        eps_planned=1e12,
        delta=1e-5,
        accountant="rdp",
        unit="record",
    )
    return replace(entry, **changes)


def charge(round: int, hospital: str = "hospital-01", **changes: Any) -> ChargeEntry:
    """Two steps a round, from round 1."""
    entry = ChargeEntry(
        hospital=hospital,
        round=round,
        kind="train",
        noise_id=f"seeded/{hospital}/{round}",
        steps=2,
        steps_spent=2 * round,
        eps_spent=1e11 * round,
        delivered=True,
    )
    return replace(entry, **changes)


ENTRIES: tuple[Entry, ...] = (
    plan(),
    plan("hospital-02", noise_multiplier=0.0, max_grad_norm=math.inf, eps_planned=math.inf),
    RefusalEntry("hospital-03", None, 'only "tissue" is allowed, nicht Lungenbilder: ä\n'),
    charge(1),
    charge(1, "hospital-02", eps_spent=math.inf),
    charge(2, delivered=False),
    RefusalEntry("hospital-02", 2, "busy"),
    charge(3, kind="probe"),
)


def write(path: Path, entries: Iterable[Entry] = ENTRIES) -> Head:
    with Ledger(path) as ledger:
        for entry in entries:
            assert ledger.append(entry)
        return ledger.head


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def by_hand(line: dict[str, Any]) -> str:
    """The hash as anybody can compute it, without the library."""
    covered = {key: value for key, value in line.items() if key not in ("hash", "time", "seconds")}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode("utf-8")).hexdigest()


def sealed_anew(lines: Iterable[dict[str, Any]]) -> str:
    """Lines as a forger writes them who knows how the chain is made."""
    text, previous = "", "0" * 64
    for seq, line in enumerate(lines):
        line = {**line, "seq": seq, "previous": previous}
        line["hash"] = previous = by_hand(line)
        text += json.dumps(line) + "\n"
    return text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Head]:
    file = tmp_path_factory.mktemp("original") / "ledger.jsonl"
    head = write(file)
    return file.read_bytes(), head


# What is written.


def test_the_chain_is_what_one_computes_by_hand(path: Path) -> None:
    head = write(path)
    lines = read(path)
    previous = "0" * 64
    for seq, line in enumerate(lines):
        assert (line["seq"], line["previous"], line["hash"]) == (seq, previous, by_hand(line))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
        previous = line["hash"]
    assert head == Head(len(ENTRIES), previous)
    assert [line["kind"] for line in lines] == [
        "plan", "plan", "refusal", "charge", "charge", "charge", "refusal", "charge"
    ]  # fmt: skip


def test_a_line_holds_its_entrys_figures_as_strict_json(path: Path) -> None:
    write(path)
    lines = read(path)
    frame = {"seq", "kind", "time", "previous", "hash"}
    own = [{key: value for key, value in line.items() if key not in frame} for line in lines]
    assert own[0] == {key: value for key, value in asdict(plan()).items() if value is not None}
    assert (own[1]["max_grad_norm"], own[1]["eps_planned"]) == ("inf", "inf")
    assert own[2] == asdict(ENTRIES[2])
    assert own[4]["eps_spent"] == "inf"
    train = asdict(charge(1))
    assert own[3] == {"request" if key == "kind" else key: value for key, value in train.items()}
    assert (own[3]["request"], own[7]["request"]) == ("train", "probe")
    assert path.read_bytes().isascii()


def test_the_hash_does_not_depend_on_times(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = write(path)
    monkeypatch.setattr("hbdp_fed.privacy.ledger.book.now", lambda: "1999-12-31T23:59:59.000+00:00")
    other = tmp_path / "other.jsonl"
    assert write(other) == head
    assert verify(other, expected_head=head).end_checked
    assert path.read_bytes() != other.read_bytes()
    line = {"seq": 0, "eps_spent": "inf", "time": "now", "seconds": 1.5, "hash": "x"}
    assert line_hash(line) == line_hash({**line, "time": "later", "seconds": 9, "hash": "y"})
    assert line_hash(line) != line_hash({**line, "seq": 1})


def test_numbers_of_another_type_make_the_same_line(path: Path, tmp_path: Path) -> None:
    first = write(path, [plan(eps_planned=4.0), charge(1, eps_spent=1.0)])
    counts = {"steps": np.int32(2), "steps_spent": np.int64(2)}
    second = write(
        tmp_path / "other", [plan(eps_planned=4, records=np.int64(200)), charge(1, **counts, eps_spent=np.float64(1))]
    )
    assert first == second


# A repetition.


def test_a_run_that_was_interrupted_and_repeats_its_rounds_ends_with_the_same_chain(path: Path, tmp_path: Path) -> None:
    head = write(path)
    resumed = tmp_path / "resumed.jsonl"
    write(resumed, ENTRIES[:6])
    with Ledger(resumed) as ledger:
        assert [ledger.append(entry) for entry in ENTRIES] == [False] * 6 + [True] * 2
        assert ledger.head == head
        assert ledger.steps_spent("hospital-01") == 6
    assert verify(resumed, expected_head=head) == verify(path, expected_head=head)


def test_a_repetition_within_one_process_is_charged_once_and_noise_of_its_own_again(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.append(plan())
        assert ledger.append(charge(1, noise_id="secret-1"))
        assert not ledger.append(charge(1, noise_id="secret-1"))
        assert ledger.append(charge(1, noise_id="secret-2", steps_spent=4))
        assert not ledger.append(charge(1, noise_id="secret-1"))
        assert ledger.steps_spent("hospital-01") == 4
        assert ledger.steps_spent("hospital-09") == 0
    account = verify(path).accounts["hospital-01"]
    assert (account.rounds, account.steps_spent) == (1, 4)


def test_a_lost_answer_that_arrives_when_asked_for_again_is_charged_once(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(plan())
        assert ledger.append(charge(1, delivered=False))
        assert not ledger.append(charge(1, delivered=True))
    assert verify(path).accounts["hospital-01"].lost == 1


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (charge(1, steps=1), "hospital-01 was charged for round 1 with noise seeded/hospital-01/1 before"),
        (charge(1, steps_spent=4), "kind, steps, steps_spent, eps_spent = train, 2, 4, 100000000000.0"),
        (charge(1, eps_spent=2e11), "was charged for round 1"),
        (charge(1, kind="probe"), "was charged for round 1"),
        (plan(records=201, delta=1e-6), "hospital-01 has another plan already: it differs in records, delta"),
        (charge(1, "hospital-02"), "hospital-02 is charged without a plan"),
        (charge(2, steps_spent=5), "the steps of hospital-01 do not add up: 2 before and 2 now are not 5"),
        (charge(3), "the steps of hospital-01 do not add up: 2 before and 2 now are not 6"),
        (charge(2, steps=9, steps_spent=11), "hospital-01 spends 11 steps and has planned 10"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True])
def test_an_entry_that_contradicts_an_earlier_one_is_refused_and_not_written(
    entry: Entry, told: str, reopened: bool, path: Path
) -> None:
    with Ledger(path) as ledger:
        ledger.extend([plan(), charge(1)])
        before = path.read_bytes()
        if not reopened:
            with pytest.raises(LedgerError, match=re.escape(f"{path}: line 3: ")) as caught:
                ledger.append(entry)
    if reopened:
        with Ledger(path) as ledger, pytest.raises(LedgerError) as caught:
            ledger.append(entry)
    assert told in caught.value.problem
    assert path.read_bytes() == before
    # It can be gone on with.
    with Ledger(path) as ledger:
        assert ledger.append(charge(2))
    verify(path)


def test_of_several_entries_those_before_the_wrong_one_are_written(path: Path) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="line 3: the steps of hospital-01 do not add up"):
            ledger.extend([plan(), charge(1), charge(3), charge(2)])
        assert ledger.head.count == 2
        assert ledger.extend([plan(), charge(1), charge(2)]) == 1
        head = ledger.head
    assert verify(path, expected_head=head).accounts["hospital-01"].steps_spent == 4


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: plan(""), "hospital must be text that is not empty"),
        (lambda: plan(records=-1), "records must be a whole number of at least 0, got -1"),
        (lambda: plan(records=1.0), "records must be a whole number"),
        (lambda: plan(eps_planned=math.nan), r"eps_planned must be a number of at least 0 \(or inf\), got nan"),
        (lambda: plan(eps_planned=-1), "eps_planned must be"),
        (lambda: plan(noise_multiplier=math.inf), "noise_multiplier must be finite"),
        (lambda: plan(max_grad_norm=0), "max_grad_norm must be positive"),
        (lambda: plan(sample_rate=0), "sample_rate must lie in"),
        (lambda: plan(steps_planned=0), "steps must be a whole number of at least 1"),
        (lambda: plan(delta=1), "delta must lie strictly between"),
        (lambda: charge(1, kind="test"), "kind must be train or probe, got 'test'"),
        (lambda: charge(1, steps=True), "steps must be a whole number"),
        (lambda: charge(1, eps_spent="1"), "eps_spent must be"),
        (lambda: charge(1, delivered=1), "delivered must be true or false"),
        (lambda: RefusalEntry("hospital-01", None, ""), "reason must be text"),
    ],
)
def test_an_entry_names_the_figure_that_cannot_be(make: Callable[[], Entry], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


# Crashes.


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_cut_off_with_a_warning_and_written_again(
    kept: int, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    # With -1 the line is whole but for its newline.
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    with pytest.raises(LedgerError, match=r"line 8: was cut off"):
        verify(path)
    with caplog.at_level(logging.WARNING), Ledger(path) as ledger:
        assert ledger.head.count == len(ENTRIES) - 1
        assert path.read_bytes() == b"".join(lines[:-1])
        assert ledger.append(ENTRIES[-1])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: line 8 was not written to its end and is cut off ({len(lines[-1][:kept])} bytes)"
    ]
    assert verify(path, expected_head=head).end_checked


def test_an_earlier_torn_line_is_never_cut_off(path: Path) -> None:
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    broken = b"".join([*lines[:3], lines[3][:40] + b"\n", *lines[4:]])
    path.write_bytes(broken)
    with pytest.raises(LedgerError, match=re.escape(f"{path}: line 4: is no JSON")):
        Ledger(path)
    assert path.read_bytes() == broken


def test_a_broken_ledger_is_not_opened(path: Path) -> None:
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4] + lines[5:]))
    with pytest.raises(LedgerError, match="line 5: has seq 5 where 4 should follow"):
        Ledger(path)


def test_what_append_returned_from_survives_a_kill(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.privacy.test_ledger import *\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.append(plan()); ledger.append(charge(1)); os._exit(9)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=120)
    assert done.returncode == 9
    assert verify(path).head.count == 2


def test_every_append_is_synced_and_several_entries_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Ledger(path) as ledger:
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.stat().st_size))
        sizes = []
        for entry in ENTRIES[:3]:
            ledger.append(entry)
            sizes.append(path.stat().st_size)
        assert synced == sizes == sorted(set(sizes))
        ledger.extend(ENTRIES)
        assert synced == [*sizes, path.stat().st_size]
        ledger.extend(ENTRIES)
        assert len(synced) == 4, "nothing was new"


def test_after_a_failed_write_the_ledger_takes_no_more_and_can_be_opened_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    with Ledger(path) as ledger:
        ledger.append(plan())
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="no space"):
                ledger.append(charge(1))
        with pytest.raises(LedgerError, match="an earlier write failed"):
            ledger.append(charge(2))
    with Ledger(path) as ledger:
        ledger.append(charge(1))
        assert ledger.append(charge(2))
    assert verify(path).accounts["hospital-01"].steps_spent == 4


def test_two_writers_never_fork_the_chain(path: Path) -> None:
    with Ledger(path) as first, Ledger(path) as second:
        first.append(plan())
        with pytest.raises(LedgerError, match="line 1: cannot be written: the file was changed since it was opened"):
            second.append(plan("hospital-02"))
        first.append(charge(1))
    assert verify(path).head.count == 2


def test_a_folder_that_does_not_exist_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ledger(tmp_path / "no" / "ledger.jsonl")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "ledger.jsonl")


# Tampering.


def test_an_intact_ledger_says_how_every_hospital_stands(path: Path) -> None:
    head = write(path)
    found = verify(path, expected_head=head)
    assert found.head == head
    assert found.end_checked
    assert not verify(path).end_checked
    second = ENTRIES[1]
    assert isinstance(second, PlanEntry)
    assert found.accounts == {
        "hospital-01": Account(plan(), rounds=3, lost=1, steps_spent=6, eps_spent=3e11, refusals=0),
        "hospital-02": Account(second, rounds=1, lost=0, steps_spent=2, eps_spent=math.inf, refusals=1),
        "hospital-03": Account(None, rounds=0, lost=0, steps_spent=0, eps_spent=0.0, refusals=1),
    }


def test_an_empty_ledger_is_intact(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.head == Head(0, "0" * 64)
    assert verify(path).accounts == {}
    assert verify(path, expected_head=Head()).end_checked


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tampered") / "ledger.jsonl"


def caught(scratch: Path, data: bytes, head: Head | None) -> LedgerError:
    scratch.write_bytes(data)
    with pytest.raises(LedgerError) as error:
        verify(scratch, expected_head=head)
    return error.value


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_byte_is_found_in_its_line(
    data: st.DataObject, original: tuple[bytes, Head], scratch: Path
) -> None:
    content, _ = original
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(byte != content[at])
    line = content[:at].count(b"\n")
    start = content.rfind(b"\n", 0, at) + 1
    time = re.search(rb'"time": "([^"]+)"', content[start:])
    assert time is not None
    assume(not start + time.start(1) <= at < start + time.end(1))
    # The chain alone tells: no end is expected.
    error = caught(scratch, content[:at] + bytes([byte]) + content[at + 1 :], None)
    assert error.line == line + 1
    assert str(error).startswith(f"{scratch}: line {line + 1}: ")


@settings(max_examples=100)
@given(data=st.data())
def test_any_inserted_or_removed_byte_is_found(
    data: st.DataObject, original: tuple[bytes, Head], scratch: Path
) -> None:
    content, _ = original
    at = data.draw(st.integers(0, len(content) - 1))
    inserted = data.draw(st.sampled_from([b" ", b"\n", b"0", b"\r", b"\x00", b"", b"\t"]))
    changed = content[:at] + inserted + content[at + (not inserted) :]
    time = re.compile(rb'"time": "[^"]*"')
    assume(time.sub(b"", changed) != time.sub(b"", content))
    caught(scratch, changed, None)


def test_a_changed_time_may_pass_and_one_that_is_none_does_not(original: tuple[bytes, Head], scratch: Path) -> None:
    content, head = original
    time = re.compile(rb'"time": "[^"]*"')
    scratch.write_bytes(time.sub(b'"time": "2001-01-01T00:00:00+00:00"', content))
    assert verify(scratch, expected_head=head).end_checked
    for wrong in (b'"time": "2001-13-01T00:00:00+00:00"', b'"time": "2001-01-01T00:00:00+02:00"', b'"time": 3'):
        assert caught(scratch, time.sub(wrong, content, count=1), head).line == 1


@settings(max_examples=100)
@given(data=st.data())
def test_any_dropped_repeated_or_moved_line_is_found(
    data: st.DataObject, original: tuple[bytes, Head], scratch: Path
) -> None:
    content, head = original
    lines = content.splitlines(keepends=True)
    index = st.integers(0, len(lines) - 1)
    first, second = data.draw(index), data.draw(index)
    how = data.draw(st.sampled_from(["drop", "drop the rest", "repeat", "swap"]))
    if how == "drop":
        changed, at = lines[:first] + lines[first + 1 :], first
    elif how == "drop the rest":
        changed, at = lines[:first], first
    elif how == "repeat":
        # After itself or later, or earlier than itself.
        changed, at = [*lines[:second], lines[first], *lines[second:]], second + (first == second)
    else:
        assume(first != second)
        changed, at = list(lines), min(first, second)
        changed[first], changed[second] = lines[second], lines[first]
    error = caught(scratch, b"".join(changed), head)
    assert error.line == at + 1


def test_the_chain_alone_does_not_show_a_dropped_end_and_an_expected_head_does(
    original: tuple[bytes, Head], scratch: Path
) -> None:
    content, head = original
    scratch.write_bytes(b"".join(content.splitlines(keepends=True)[:-2]))
    shortened = verify(scratch)
    assert not shortened.end_checked
    assert shortened.head.count == head.count - 2
    error = caught(scratch, scratch.read_bytes(), head)
    assert (error.line, error.problem) == (7, "is missing: 8 lines are expected, not 6")
    # And lines that came after the head was kept.
    error = caught(scratch, content, shortened.head)
    assert (error.line, error.problem) == (7, "was added: only 6 lines are expected")


@pytest.mark.parametrize("extra", [0, 1])
def test_a_chain_that_was_written_anew_is_found_by_its_head(
    extra: int, original: tuple[bytes, Head], path: Path
) -> None:
    content, head = original
    lines = [json.loads(line) for line in content.splitlines()]
    lines[0]["records"] = 201
    path.write_text(sealed_anew([*lines, *[{**lines[6], "reason": "again"}] * extra]))
    assert verify(path).accounts["hospital-01"].plan == plan(records=201)
    with pytest.raises(LedgerError, match="line 8: is not the line that is expected there"):
        verify(path, expected_head=head)


def test_one_line_that_was_sealed_anew_is_found_by_the_next_one(original: tuple[bytes, Head], scratch: Path) -> None:
    lines = original[0].decode().splitlines(keepends=True)
    forged = {**json.loads(lines[3]), "eps_spent": 1.0}
    forged["hash"] = by_hand(forged)
    lines[3] = json.dumps(forged) + "\n"
    error = caught(scratch, "".join(lines).encode(), None)
    assert (error.line, error.problem.split(":")[0]) == (5, "does not follow line 4")


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (lambda lines: lines[3].update(steps_spent=3), 4, "do not add up: 0 before and 2 now are not 3"),
        (lambda lines: lines[3].update(steps=11, steps_spent=11), 4, "spends 11 steps and has planned 10"),
        (lambda lines: lines.pop(0), 3, "hospital-01 is charged without a plan"),
        (lambda lines: lines.insert(4, lines[3]), 5, "repeats an earlier charge of hospital-01"),
        (lambda lines: lines.insert(1, lines[0]), 2, "repeats an earlier plan of hospital-01"),
        (lambda lines: lines.insert(3, lines[2]), 4, "repeats an earlier refusal of hospital-03"),
        (lambda lines: lines.insert(1, {**lines[0], "records": 3}), 2, "has another plan already"),
        (lambda lines: lines[0].update(kind="wish"), 1, "is of an unknown kind: 'wish'"),
        (lambda lines: lines[0].update(kind=["plan"]), 1, "is of an unknown kind"),
        (lambda lines: lines[0].update(note="mine"), 1, "is a plan with other keys than hospital, records, "),
        (lambda lines: lines[0].update(records=-1), 1, "records must be a whole number of at least 0, got -1"),
        (lambda lines: lines[0].update(records=200.0), 1, "records must be a whole number"),
        (lambda lines: lines[1].update(eps_planned=math.inf), 2, "is no JSON"),
        (lambda lines: lines[0].update(eps_planned=1000), 1, "written in another way"),
        (lambda lines: lines[3].update(delivered=None), 4, "delivered must be true or false"),
    ],
)
def test_a_chain_without_a_flaw_must_make_sense_too(
    change: Callable[[list[dict[str, Any]]], Any], line: int, told: str, original: tuple[bytes, Head], scratch: Path
) -> None:
    lines = [json.loads(text) for text in original[0].splitlines()]
    change(lines)
    error = caught(scratch, sealed_anew(lines).encode(), None)
    assert error.line == line
    assert told in error.problem


@pytest.mark.parametrize(
    "content", [b"{}\n", b"[1]\n", b"\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"hospital": 1}\n']
)
def test_what_never_was_a_ledger_is_told_so(content: bytes, scratch: Path) -> None:
    assert caught(scratch, content, None).line == 1


# The rest.


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LedgerError(Path("ledger.jsonl"), 3, "is no JSON")))
    assert (str(error), error.line) == ("ledger.jsonl: line 3: is no JSON", 3)


def test_memory_stays_small(path: Path) -> None:
    """1,000 hospitals times 500 rounds are 500 000 charges: below 200 MB at 400 bytes each."""
    hospitals, rounds = 20, 250
    names = [f"hospital-{number:04d}" for number in range(hospitals)]
    with Ledger(path) as ledger:
        ledger.extend(plan(name, steps_planned=2 * rounds) for name in names)
        tracemalloc.start()
        for number in range(1, rounds + 1):
            ledger.extend(charge(number, name) for name in names)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert used / (hospitals * rounds) < 400


def test_a_plan_says_its_unit(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(plan("a"))
        ledger.append(plan("b", unit="patient", patients=80))
    first, second = read(path)
    assert (first["unit"], "patients" in first) == ("record", False)
    assert (second["unit"], second["patients"]) == ("patient", 80)
    accounts = verify(path).accounts
    assert [account.plan and account.plan.per for account in accounts.values()] == ["record", "patient"]


def test_a_ledger_from_when_there_were_records_alone_is_intact_and_goes_on(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(plan(unit=None))
    assert "unit" not in read(path)[0]
    old = verify(path)
    with Ledger(path) as ledger:
        assert not ledger.append(plan())  # the same plan, now with its unit
        assert ledger.append(charge(1))
    account = verify(path).accounts["hospital-01"]
    assert old.head.count == 1
    assert account.plan is not None
    assert account.plan.per == "record"


def test_a_plan_for_patients_is_another_one_than_for_records(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(plan())
        with pytest.raises(LedgerError, match="it differs in unit, patients"):
            ledger.append(plan(unit="patient", patients=80))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unit": "person"}, "unit must be one of: record, patient; got 'person'"),
        ({"unit": "patient"}, "patients must be at least 1 where they are the unit"),
        ({"unit": "patient", "patients": 0}, "patients must be at least 1 where they are the unit"),
        ({"patients": 5}, "and else None, got 5"),
    ],
)
def test_units_that_cannot_be_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(**changes)
