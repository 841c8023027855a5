"""The privacy ledger: what every hospital planned, spent and refused, in a file that shows when it was tampered with.

A line is a JSON object. Each one holds the hash of the line before, so that no line can be changed, dropped, inserted
or moved without its successor telling. Whoever rewrites the whole rest of the chain, or drops its end, is found out by
a :class:`Head` that was kept elsewhere.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from hbdp_fed.privacy.history import check_delta, check_mechanism
from hbdp_fed.strict_json import dumps, to_plain

_LOGGER = logging.getLogger(__name__)

START = "0" * 64
"""What the first line has as its ``previous``."""

TIMES = frozenset({"time", "seconds"})
"""Keys that no hash covers: they differ between a run and its repetition, and nothing is accounted by them."""

RequestKind = Literal["train", "probe"]

_DIGEST = 8


class LedgerError(RuntimeError):
    """A ledger is not what it should be, or an entry does not fit into it.

    Args:
        path: The file.
        line: Which line is wrong, counted from 1; for an entry that does not fit, the one it would have been.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}: line {line}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[LedgerError], tuple[Path, int, str]]:
        """By what it was made of, so that it can be raised in a worker process and caught here."""
        return type(self), (self.path, self.line, self.problem)


# Entries.


@dataclass(frozen=True)
class PlanEntry:
    """What a hospital agreed to before training. It has one plan, before its first charge.

    Attributes:
        hospital: Its name.
        records: How many it holds, at least 0.
        noise_multiplier: sigma, at least 0 and finite.
        max_grad_norm: The clipping norm, positive; ``inf`` does not clip.
        sample_rate: q in (0, 1].
        steps_planned: T, at least 1, over all rounds and probes.
        eps_planned: What T steps cost, at least 0; ``inf`` without noise.
        delta: In (0, 1).
        accountant: By which epsilon is counted.

    Raises:
        ValueError: naming the figure that cannot be.
    """

    hospital: str
    records: int
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps_planned: int
    eps_planned: float
    delta: float
    accountant: str

    def __post_init__(self) -> None:
        _settle(self)
        check_mechanism(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=self.steps_planned)
        check_delta(self.delta)
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, got {self.max_grad_norm}")


@dataclass(frozen=True)
class ChargeEntry:
    """What one computation of a hospital cost, whether or not its answer arrived.

    Attributes:
        hospital: Its name.
        round: At least 0; probes count on after the last training round.
        kind: ``train`` or ``probe``. In the file this is ``request``, because there ``kind`` is the line's own.
        noise_id: Identifies the noise stream. The same text means the same noise to the last bit, hence a repetition
            that tells nobody anything new and costs nothing. Noise that is never the same twice has its own each time.
        steps: Of this computation, at least 0.
        steps_spent: Of the hospital so far, these included.
        eps_spent: What ``steps_spent`` steps cost, at least 0; ``inf`` without noise.
        delivered: Whether the answer arrived. A lost one was computed, may have been seen, and is charged all the same.

    Raises:
        ValueError: naming the figure that cannot be.
    """

    hospital: str
    round: int
    kind: RequestKind
    noise_id: str
    steps: int
    steps_spent: int
    eps_spent: float
    delivered: bool

    def __post_init__(self) -> None:
        _settle(self)


@dataclass(frozen=True)
class RefusalEntry:
    """A hospital's no.

    Attributes:
        hospital: Its name.
        round: The round that it refused; None for the whole federation.
        reason: Why, in words.

    Raises:
        ValueError: naming what cannot be.
    """

    hospital: str
    round: int | None
    reason: str

    def __post_init__(self) -> None:
        _settle(self)


Entry = PlanEntry | ChargeEntry | RefusalEntry

_KINDS: Mapping[str, type[Entry]] = {"plan": PlanEntry, "charge": ChargeEntry, "refusal": RefusalEntry}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be text that is not empty, got {value!r}")
    return value


def _request_kind(value: Any) -> str:
    if value not in ("train", "probe"):
        raise ValueError(f"must be train or probe, got {value!r}")
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 0:
        raise ValueError(f"must be a whole number of at least 0, got {value!r}")
    return operator.index(value)


def _amount(value: Any) -> float:
    # "inf" is how an infinite figure stands in the file.
    number = math.nan if isinstance(value, bool) or (isinstance(value, str) and value != "inf") else float(value)
    if not number >= 0:
        raise ValueError(f"must be a number of at least 0 (or inf), got {value!r}")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "RequestKind": _request_kind,
    "int": _whole,
    "int | None": lambda value: None if value is None else _whole(value),
    "float": _amount,
    "bool": _flag,
}
"""By a field's annotation, what makes a value of it."""


def _settle(entry: Entry) -> None:
    """Turn the entry's values into the types that are written: an epsilon of 1 and one of 1.0 have the same hash."""
    for item in fields(entry):
        try:
            value = _READERS[str(item.type)](getattr(entry, item.name))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{item.name} {error}") from None
        object.__setattr__(entry, item.name, value)


# Lines.


@dataclass(frozen=True)
class Head:
    """The end of a chain. Kept elsewhere, it vouches for every line before it.

    Attributes:
        count: How many lines there are.
        hash: The last line's hash, 64 hexadecimal digits; :data:`START` where there is none.
    """

    count: int = 0
    hash: str = START


def line_hash(line: Mapping[str, Any]) -> str:
    """SHA-256 of a line in hexadecimal digits.

    It covers the canonical JSON (keys sorted, no spaces, ASCII) of all of the line but its ``hash`` and :data:`TIMES`,
    so that a run that was interrupted and resumed ends with the same hash as one that was not.

    Args:
        line: Plain JSON values.

    Raises:
        ValueError: if a number in it is not finite.
    """
    covered = {key: value for key, value in line.items() if key != "hash" and key not in TIMES}
    return sha256(json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _name_of(entry: Entry) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(entry, kind))


def _in_file(name: str) -> str:
    """The key under which a field is written."""
    return "request" if name == "kind" else name


def _figures(entry: Entry) -> dict[str, Any]:
    return {_in_file(name): value for name, value in to_plain(entry).items()}


def _sealed(entry: Entry, head: Head, time: str) -> dict[str, Any]:
    """The line that follows ``head``."""
    line = {"seq": head.count, "kind": _name_of(entry), **_figures(entry), "time": time, "previous": head.hash}
    return {**line, "hash": line_hash(line)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _is_utc(time: Any) -> bool:
    try:
        return datetime.fromisoformat(time).utcoffset() == timedelta(0)
    except (TypeError, ValueError):
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _opened(raw: bytes, head: Head) -> tuple[Entry, str]:
    """The entry of the line that should follow ``head``, and the line's hash.

    Raises:
        ValueError: telling what is wrong with it.
    """
    try:
        line = json.loads(raw.decode("ascii"), parse_constant=_no_constant)
        found = line_hash(line) if isinstance(line, dict) else ""
    except (ValueError, RecursionError):
        raise ValueError("is no JSON: it was changed") from None
    if not isinstance(line, dict):
        raise ValueError("is no JSON object: it was changed")
    missing = [key for key in ("seq", "kind", "time", "previous", "hash") if key not in line]
    if missing:
        raise ValueError(f"has no {', '.join(missing)}: it was changed, or never was a line of a hash-chained ledger")
    if line["hash"] != found:
        raise ValueError(f"was changed: its hash is {line['hash']}, of what it holds it would be {found}")
    if line["seq"] != head.count:
        raise ValueError(
            f"has seq {line['seq']} where {head.count} should follow: lines were dropped, inserted or moved here"
        )
    if line["previous"] != head.hash:
        before = f"line {head.count}" if head.count else "a chain's start"
        raise ValueError(f"does not follow {before}: either of them was replaced, or belongs to another chain")
    if not _is_utc(line["time"]):
        raise ValueError(f"was changed: its time {line['time']!r} is no ISO time in UTC")
    entry = _entry(line)
    # The hash covers values. This covers how they are written: spaces, the order of keys, keys that stand twice.
    if dumps(_sealed(entry, head, line["time"])).encode("ascii") != raw:
        raise ValueError("was changed: the same values are written in another way than a ledger writes them")
    return entry, found


def _entry(line: Mapping[str, Any]) -> Entry:
    name = line["kind"]
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"is of an unknown kind: {name!r}")
    kind = _KINDS[name]
    wanted = {_in_file(item.name): item.name for item in fields(kind)}
    given = {key: value for key, value in line.items() if key not in ("seq", "kind", "time", "previous", "hash")}
    if set(given) != set(wanted):
        raise ValueError(f"is a {name} with other keys than {', '.join(wanted)}")
    return kind(**{wanted[key]: value for key, value in given.items()})


# Accounts.


@dataclass(frozen=True)
class Account:
    """How one hospital stands.

    Attributes:
        plan: Its plan; None for one that only ever refused.
        rounds: How many different rounds and probes it was charged for.
        lost: How many charges were for answers that did not arrive.
        steps_spent: All steps charged.
        eps_spent: What they cost, as its last charge says; 0 without one.
        refusals: How often it refused.
    """

    plan: PlanEntry | None
    rounds: int
    lost: int
    steps_spent: int
    eps_spent: float
    refusals: int


def _digest(value: Any) -> bytes:
    """A few bytes in place of many: enough among the entries of one hospital's one round."""
    return sha256(dumps(value).encode()).digest()[:_DIGEST]


@dataclass(slots=True)
class _Running:
    """An account while it grows. About 150 bytes a charge: 1,000 hospitals times hundreds of rounds must fit."""

    plan: PlanEntry | None = None
    lost: int = 0
    steps_spent: int = 0
    eps_spent: float = 0.0
    # By round. Of each charge the digests of its noise and its figures, of each refusal that of its reason.
    charged: dict[int, bytes] = field(default_factory=dict)
    refused: dict[int | None, bytes] = field(default_factory=dict)

    def so_far(self) -> Account:
        refusals = sum(map(len, self.refused.values())) // _DIGEST
        return Account(self.plan, len(self.charged), self.lost, self.steps_spent, self.eps_spent, refusals)

    def take(self, entry: Entry) -> bool:
        """Enter ``entry``. False if it was entered before.

        Raises:
            ValueError: telling why it does not fit.
        """
        if isinstance(entry, PlanEntry):
            return self._take_plan(entry)
        if isinstance(entry, ChargeEntry):
            return self._take_charge(entry)
        return self._take_refusal(entry)

    def _take_plan(self, entry: PlanEntry) -> bool:
        if self.plan is None:
            self.plan = entry
            return True
        differing = [item.name for item in fields(entry) if getattr(entry, item.name) != getattr(self.plan, item.name)]
        if differing:
            raise ValueError(f"{entry.hospital} has another plan already: it differs in {', '.join(differing)}")
        return False

    def _take_charge(self, entry: ChargeEntry) -> bool:
        # Whether the answer arrived is no part of what it cost: a lost one may be asked for again and then arrive.
        cost = (entry.kind, entry.steps, entry.steps_spent, entry.eps_spent)
        noise, figures = _digest(entry.noise_id), _digest(cost)
        known = self.charged.get(entry.round, b"")
        for start in range(0, len(known), 2 * _DIGEST):
            if known[start : start + _DIGEST] == noise:
                if known[start + _DIGEST : start + 2 * _DIGEST] != figures:
                    raise ValueError(
                        f"{entry.hospital} was charged for round {entry.round} with noise {entry.noise_id} before, "
                        f"and not with kind, steps, steps_spent, eps_spent = {', '.join(map(str, cost))}"
                    )
                return False
        self._check_steps(entry)
        self.charged[entry.round] = known + noise + figures
        self.steps_spent, self.eps_spent = entry.steps_spent, entry.eps_spent
        self.lost += not entry.delivered
        return True

    def _check_steps(self, entry: ChargeEntry) -> None:
        if self.plan is None:
            raise ValueError(f"{entry.hospital} is charged without a plan")
        if entry.steps_spent != self.steps_spent + entry.steps:
            raise ValueError(
                f"the steps of {entry.hospital} do not add up: {self.steps_spent} before and {entry.steps} now are not "
                f"{entry.steps_spent}"
            )
        if entry.steps_spent > self.plan.steps_planned:
            raise ValueError(
                f"{entry.hospital} spends {entry.steps_spent} steps and has planned {self.plan.steps_planned}"
            )

    def _take_refusal(self, entry: RefusalEntry) -> bool:
        reason, known = _digest(entry.reason), self.refused.get(entry.round, b"")
        if any(known[start : start + _DIGEST] == reason for start in range(0, len(known), _DIGEST)):
            return False
        self.refused[entry.round] = known + reason
        return True


class _Book:
    """A chain's end and the accounts that its lines add up to."""

    def __init__(self) -> None:
        self.head = Head()
        self.running: dict[str, _Running] = {}

    def read(self, raw: bytes) -> None:
        """Take the next line of a file, without its newline; ValueError tells what is wrong with it."""
        entry, found = _opened(raw, self.head)
        if not self._of(entry).take(entry):
            raise ValueError(f"repeats an earlier {_name_of(entry)} of {entry.hospital}")
        self.head = Head(self.head.count + 1, found)

    def write(self, entry: Entry) -> bytes:
        """The line for ``entry`` with its newline, nothing if it is there already; ValueError if it does not fit."""
        if not self._of(entry).take(entry):
            return b""
        line = _sealed(entry, self.head, _now())
        self.head = Head(self.head.count + 1, line["hash"])
        return dumps(line).encode("ascii") + b"\n"

    def _of(self, entry: Entry) -> _Running:
        return self.running.setdefault(entry.hospital, _Running())


def _read(path: Path, book: _Book, *, may_be_cut_off: bool) -> Iterator[int]:
    """Take all whole lines of a file into ``book``; after each one, how many bytes were read.

    Raises:
        LedgerError: naming the first line that is wrong.
    """
    size = 0
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                if may_be_cut_off:
                    return
                raise LedgerError(path, book.head.count + 1, "was cut off: it has no newline at its end")
            try:
                book.read(raw[:-1])
            except ValueError as problem:
                raise LedgerError(path, book.head.count + 1, str(problem)) from None
            size += len(raw)
            yield size


# Checking a file.


@dataclass(frozen=True)
class Verified:
    """What an intact ledger says.

    Attributes:
        head: Its end.
        accounts: By hospital, in the order in which they first appear.
        end_checked: Whether the end was compared with a head kept elsewhere. If not, lines may be missing there.
    """

    head: Head
    accounts: Mapping[str, Account]
    end_checked: bool


def verify(path: Path, *, expected_head: Head | None = None) -> Verified:
    """Check a whole ledger: every line, the chain that they make and the accounts that they add up to.

    Args:
        path: The file. It is only read.
        expected_head: Its end, as it was kept elsewhere.

    Raises:
        LedgerError: naming the first line that is wrong, and how.
        OSError: if the file cannot be read.
    """
    book, at_expected = _Book(), START
    for _ in _read(path, book, may_be_cut_off=False):
        if expected_head is not None and book.head.count == expected_head.count:
            at_expected = book.head.hash
    if expected_head is not None:
        _check_end(path, book.head, expected_head, at_expected)
    accounts = {name: running.so_far() for name, running in book.running.items()}
    return Verified(head=book.head, accounts=accounts, end_checked=expected_head is not None)


def _check_end(path: Path, head: Head, expected: Head, at_expected: str) -> None:
    if head.count < expected.count:
        raise LedgerError(path, head.count + 1, f"is missing: {expected.count} lines are expected, not {head.count}")
    if at_expected != expected.hash:
        raise LedgerError(
            path,
            expected.count,
            f"is not the line that is expected there: its hash is {at_expected}, not {expected.hash}; "
            "the chain was written anew",
        )
    if head.count > expected.count:
        raise LedgerError(path, expected.count + 1, f"was added: only {expected.count} lines are expected")


# Writing a file.


class Ledger:
    """A ledger that is open for writing. Whatever :meth:`append` has returned from survives a crash.

    A file that exists is read and checked first. If its last line has no newline, the process that wrote it was killed
    before anybody could rely on it, and it is cut off with a warning.

    Args:
        path: The file; its folder exists.

    Raises:
        LedgerError: if the file is not intact.
        OSError: if it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._book = _Book()
        self._size = 0
        self._failed = False
        # Without a buffer: what could not be written must not be written later.
        self._file = path.open("ab", buffering=0)
        try:
            with self._alone():
                for size in _read(path, self._book, may_be_cut_off=True):
                    self._size = size
                self._cut_off()
            _sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    @property
    def head(self) -> Head:
        """The end of the chain, to be kept elsewhere."""
        return self._book.head

    def steps_spent(self, hospital: str) -> int:
        """The steps that a hospital was charged for; 0 for one that is not known."""
        running = self._book.running.get(hospital)
        return running.steps_spent if running else 0

    def append(self, entry: Entry) -> bool:
        """Write one line, and see to it that it is on the disk.

        What is there already is not written again: a charge of the same hospital, round and noise, a plan, a refusal
        for the same reason. So a run that repeats a round after a crash charges it once.

        Returns:
            Whether a line was written.

        Raises:
            LedgerError: if the entry contradicts an earlier one: another plan, the same noise with other figures, steps
                that do not add up or go beyond the plan. Nothing is written then.
            OSError: if it cannot be written. The ledger takes no more then: open it again.
        """
        return self.extend([entry]) == 1

    def extend(self, entries: Iterable[Entry]) -> int:
        """As :meth:`append` for several entries, with one wait for the disk in all.

        Returns:
            How many lines were written.

        Raises:
            LedgerError: as there. The entries before the one that does not fit are written.
            OSError: as there.
        """
        if self._failed:
            raise LedgerError(self.path, self.head.count + 1, "cannot be written: an earlier write failed")
        lines: list[bytes] = []
        try:
            for entry in entries:
                line = self._line(entry)
                if line:
                    lines.append(line)
        finally:
            self._write(b"".join(lines), first=self.head.count - len(lines) + 1)
        return len(lines)

    def close(self) -> None:
        """Close the file. Everything is on the disk already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, entry: Entry) -> bytes:
        try:
            return self._book.write(entry)
        except ValueError as problem:
            raise LedgerError(self.path, self.head.count + 1, str(problem)) from None

    def _write(self, data: bytes, *, first: int) -> None:
        if not data:
            return
        # Until this has gone well, the accounts are ahead of the file.
        self._failed = True
        with self._alone():
            if os.fstat(self._file.fileno()).st_size != self._size:
                raise LedgerError(self.path, first, "cannot be written: the file was changed since it was opened")
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        self._size += len(data)
        self._failed = False

    def _cut_off(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size == self._size:
            return
        _LOGGER.warning(
            "%s: line %d was not written to its end and is cut off (%d bytes)",
            self.path,
            self.head.count + 1,
            size - self._size,
        )
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile. Some file systems know no locks; then two writers must be avoided."""
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    """A file that was just made is only safe once its folder is on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)
