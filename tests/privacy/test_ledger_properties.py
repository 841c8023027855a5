"""Whatever happens to a ledger, in any order: it charges everything once, never beyond a plan, and shows every change.

Hospitals plan, are charged, refuse, repeat themselves and crash. What a ledger should then say is added up here from
the lines of its file, and its epsilons are those of Opacus.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from hbdp_fed.privacy import epsilon_schedule
from hbdp_fed.privacy.ledger import (
    Account,
    ChargeEntry,
    Entry,
    Ledger,
    LedgerError,
    PlanEntry,
    RefusalEntry,
    verify,
)

DELTA = 1e-5
MECHANISMS = {"hospital-01": (0.8, 0.1), "hospital-02": (1.5, 0.02), "Klinik ä\n": (0.0, 0.1)}
"""By hospital, its noise multiplier and sample rate; the last one is the control without noise."""

NAMES, NOISES = st.sampled_from(list(MECHANISMS)), st.sampled_from(["seed", "secret 1", "secret 2"])

TIME = re.compile(rb'"time": "([^"]+)"')


@cache
def schedule(sigma: float, rate: float) -> Any:
    return epsilon_schedule(noise_multiplier=sigma, sample_rate=rate, delta=DELTA, accountant="rdp")


@cache
def by_opacus(sigma: float, rate: float, steps: int) -> float:
    if steps == 0:
        return 0.0
    if sigma == 0:
        return math.inf
    accountant = RDPAccountant()
    accountant.history = [(sigma, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an order at the end of its range
        return float(accountant.get_epsilon(delta=DELTA))


def added_up(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How every hospital stands, from the lines alone."""
    of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        of[line["hospital"]].append(line)
    accounts = {}
    for hospital, own in of.items():
        charges = [line for line in own if line["kind"] == "charge"]
        accounts[hospital] = {
            "planned": [line["steps_planned"] for line in own if line["kind"] == "plan"],
            "rounds": len({line["round"] for line in charges}),
            "lost": sum(not line["delivered"] for line in charges),
            "steps_spent": sum(line["steps"] for line in charges),
            "eps_spent": float(charges[-1]["eps_spent"]) if charges else 0.0,
            "refusals": sum(line["kind"] == "refusal" for line in own),
        }
    return accounts


def as_figures(account: Account) -> dict[str, Any]:
    figures = asdict(account)
    plan = figures.pop("plan")
    return {"planned": [] if plan is None else [plan["steps_planned"]], **figures}


class Hospitals:
    """One ledger, what was entered into it, and what became of that; ``draw`` decides what happens."""

    def __init__(self, path: Path, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        path.unlink(missing_ok=True)
        self.path, self.draw = path, draw
        self.ledger = Ledger(path)
        self.kept: list[Entry] = []
        self.last_batch = 0

    # What the ledger should do with an entry, told without its help.

    def of(self, hospital: str, kind: type) -> list[Any]:
        return [entry for entry in self.kept if isinstance(entry, kind) and entry.hospital == hospital]

    def spent(self, hospital: str) -> int:
        return sum(entry.steps for entry in self.of(hospital, ChargeEntry))

    def fits(self, entry: Entry) -> bool | None:
        """True if it is new, False if it is there already, None if it contradicts what is there."""
        if isinstance(entry, RefusalEntry):
            return entry not in self.kept
        plans = self.of(entry.hospital, PlanEntry)
        if isinstance(entry, PlanEntry):
            return True if not plans else False if entry in plans else None
        for known in self.of(entry.hospital, ChargeEntry):
            if (known.round, known.noise_id) == (entry.round, entry.noise_id):
                return False if replace(known, delivered=entry.delivered) == entry else None
        total = self.spent(entry.hospital) + entry.steps
        return True if plans and total == entry.steps_spent <= plans[0].steps_planned else None

    def enter(self, *entries: Entry) -> None:
        """Enter these, and see that the ledger takes what fits up to the first that does not."""
        new = 0
        for entry in entries:
            fits = self.fits(entry)
            if fits is None:
                before = self.ledger.head.count
                with pytest.raises(LedgerError, match=re.escape(f"line {before + new + 1}: ")):
                    self.ledger.extend(entries)
                break
            if fits:
                self.kept.append(entry)
                new += 1
        else:
            assert self.ledger.extend(entries) == new
        self.last_batch = new or self.last_batch

    # What happens.

    def planned(self, hospital: str, steps: int = 12) -> PlanEntry:
        sigma, rate = MECHANISMS[hospital]
        return PlanEntry(hospital, 100, sigma, 1.0, rate, steps, schedule(sigma, rate)(steps), DELTA, "rdp")

    def charged(self, hospital: str, round: int, noise: str, steps: int, total: int) -> ChargeEntry:
        return ChargeEntry(hospital, round, "train", noise, steps, total, schedule(*MECHANISMS[hospital])(total), True)

    def plan(self) -> None:
        self.enter(self.planned(self.draw(NAMES), self.draw(st.sampled_from([12, 12, 12, 1]))))

    def charge(self) -> None:
        hospital, steps = self.draw(NAMES), self.draw(st.integers(0, 4))
        # Seldom a sum that is wrong.
        total = self.spent(hospital) + steps + self.draw(st.sampled_from([0, 0, 0, 0, 1]))
        entry = self.charged(hospital, self.draw(st.integers(0, 2)), self.draw(NOISES), steps, total)
        self.enter(replace(entry, delivered=self.draw(st.booleans())))

    def refuse(self) -> None:
        self.enter(RefusalEntry(self.draw(NAMES), self.draw(st.none() | st.integers(0, 2)), self.draw(NOISES)))

    def train(self) -> None:
        """Several entries with one wait for the disk, of which a crash can leave any part."""
        first, steps, rounds = 10 + len(self.kept), self.draw(st.integers(1, 3)), self.draw(st.integers(1, 3))
        entries: list[Entry] = []
        for hospital in MECHANISMS:
            entries.append(self.planned(hospital))
            totals = itertools.accumulate([steps] * rounds, initial=self.spent(hospital))
            entries += [
                self.charged(hospital, first + place, "seed", steps, total)
                for place, total in enumerate(totals)
                if place
            ]
        self.enter(*entries)

    def repeat(self) -> None:
        if self.kept:
            entry = self.draw(st.sampled_from(self.kept))
            if isinstance(entry, ChargeEntry):
                entry = replace(entry, delivered=self.draw(st.booleans()))
            before = self.path.read_bytes()
            assert self.ledger.append(entry) is False
            assert self.path.read_bytes() == before

    def open_again(self) -> None:
        head = self.ledger.head
        self.ledger.close()
        self.ledger = Ledger(self.path)
        assert self.ledger.head == head
        assert self.ledger.extend(self.kept) == 0

    def crash(self) -> None:
        """The last write is cut anywhere; the run goes on, and may first repeat all that it had entered."""
        head, whole = self.ledger.head, list(self.kept)
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = len(lines) - min(self.last_batch, len(lines))
        before, last = b"".join(lines[:kept]), b"".join(lines[kept:])
        cut = self.draw(st.integers(0, max(len(last) - 1, 0)))
        self.ledger.close()
        self.path.write_bytes(before + last[:cut])
        del self.kept[kept + last[:cut].count(b"\n") :]
        self.ledger = Ledger(self.path)
        assert self.ledger.head.count == len(self.kept)
        if self.draw(st.booleans()):
            assert self.ledger.extend(whole) == len(whole) - len(self.kept)
            assert self.ledger.head == head
            self.kept = whole

    # What is true at any time.

    def check(self) -> None:
        lines = [json.loads(line, parse_constant=pytest.fail) for line in self.path.read_text().splitlines()]
        assert len(lines) == len(self.kept)
        charges = [line for line in lines if line["kind"] == "charge"]
        assert len({(line["hospital"], line["round"], line["noise_id"]) for line in charges}) == len(charges)
        accounts = added_up(lines)
        for hospital, figures in accounts.items():
            assert len(figures["planned"]) <= 1
            assert figures["steps_spent"] <= sum(figures["planned"])
            assert self.ledger.steps_spent(hospital) == figures["steps_spent"]
        found = verify(self.path, expected_head=self.ledger.head)
        assert {hospital: as_figures(account) for hospital, account in found.accounts.items()} == accounts
        check_epsilons(lines)


def check_epsilons(lines: Sequence[dict[str, Any]]) -> None:
    total: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "plan":
            told, steps = line["eps_planned"], line["steps_planned"]
        elif line["kind"] == "charge":
            total[line["hospital"]] += line["steps"]
            told, steps = line["eps_spent"], total[line["hospital"]]
        else:
            continue
        assert float(told) == pytest.approx(by_opacus(*MECHANISMS[line["hospital"]], steps), rel=1e-9)


# As often as they are named.
EVENTS = (
    *(Hospitals.charge,) * 5, *(Hospitals.repeat,) * 2, *(Hospitals.crash,) * 2, Hospitals.train, Hospitals.plan,
    Hospitals.refuse, Hospitals.open_again,
)  # fmt: skip


def played(path: Path, data: st.DataObject, *, check: bool) -> Hospitals:
    """A ledger after many events, the first of which are plans."""
    hospitals = Hospitals(path, data.draw)
    hospitals.enter(*(hospitals.planned(name) for name in list(MECHANISMS)[: data.draw(st.integers(1, 3))]))
    for event in data.draw(st.lists(st.sampled_from(EVENTS), min_size=10, max_size=30)):
        event(hospitals)
        if check:
            hospitals.check()
    return hospitals


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nobody pulls the plug here, so nobody waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield tmp_path_factory.mktemp("properties") / "ledger.jsonl"


def bounded(examples: int) -> settings:
    """The same examples each time. A failure is shown as it was found: to make it small would take minutes."""
    return settings(max_examples=examples, derandomize=True, database=None, phases=[Phase.generate])


@bounded(40)
@given(data=st.data())
def test_whatever_happens_everything_is_charged_once_and_nothing_beyond_the_plan(
    data: st.DataObject, path: Path
) -> None:
    played(path, data, check=True).ledger.close()


# Tampering, with whatever came to be.


@bounded(25)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_any_single_change_of_a_ledger_is_refused_at_its_line(data: st.DataObject, seed: int, path: Path) -> None:
    hospitals = played(path, data, check=False)
    hospitals.ledger.close()
    content, head = path.read_bytes().splitlines(keepends=True), hospitals.ledger.head
    assume(content)
    chance = Random(seed)
    for change in (
        *(change_a_byte, change_a_figure, change_a_case) * 8,
        *(drop, insert, swap, take_a_strange_line) * 2,
    ):
        lines = list(content)
        at = change(lines, chance, path.with_name("other.jsonl"))
        if lines == content:
            continue
        scratch = path.with_name("changed.jsonl")
        scratch.write_bytes(b"".join(lines))
        with pytest.raises(LedgerError) as error:
            verify(scratch, expected_head=head)
        assert error.value.line == at + 1
        # The chain alone tells, too; but for a dropped end, and for another ledger as a whole.
        if len(lines) > 1 and at < len(lines):
            with pytest.raises(LedgerError):
                verify(scratch)


def change_a_byte(lines: list[bytes], chance: Random, _: Path) -> int:
    return with_another_byte(
        lines, chance, rb"[^\0]|\n", lambda old: chance.choice([*range(old), *range(old + 1, 256)])
    )


def change_a_figure(lines: list[bytes], chance: Random, _: Path) -> int:
    """What is a number still."""
    return with_another_byte(lines, chance, rb"[0-9]", lambda _: chance.choice(b"0123456789"))


def change_a_case(lines: list[bytes], chance: Random, _: Path) -> int:
    """What is the same number still, 1E-05, or the same letter, written in another way."""
    return with_another_byte(lines, chance, rb"(?<=[0-9])e(?=[-+0-9])|(?<=u00)e", lambda old: old ^ 0x20)


def with_another_byte(lines: list[bytes], chance: Random, where: bytes, other: Callable[[int], int]) -> int:
    """Anywhere but in the time, which no hash covers."""
    place = chance.randrange(len(lines))
    line = lines[place]
    time = TIME.search(line)
    assert time is not None
    found = [match.start() for match in re.finditer(where, line)]
    at = chance.choice([at for at in found if not time.start(1) <= at < time.end(1)] or [0])
    lines[place] = line[:at] + bytes([other(line[at])]) + line[at + 1 :]
    return place


def drop(lines: list[bytes], chance: Random, _: Path) -> int:
    place = chance.randrange(len(lines))
    del lines[place]
    return place


def insert(lines: list[bytes], chance: Random, _: Path) -> int:
    """One of its own, again: after itself or later, or earlier than itself."""
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    place = second + (first == second)
    lines.insert(place, lines[first])
    return place


def swap(lines: list[bytes], chance: Random, _: Path) -> int:
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return min(first, second)


def take_a_strange_line(lines: list[bytes], chance: Random, other: Path) -> int:
    """One that stood at the same place in another intact ledger, inserted or in the place of its own."""
    place = chance.randrange(len(lines))
    other.unlink(missing_ok=True)
    with Ledger(other) as ledger:
        ledger.extend(RefusalEntry("stranger", number, "no") for number in range(place + 1))
    lines[place : place + chance.randrange(2)] = [other.read_bytes().splitlines(keepends=True)[place]]
    # As a first line it is none of its own fault: the line after it is wrong then, if there is one.
    return int(place == 0 and len(lines) > 1) + place
