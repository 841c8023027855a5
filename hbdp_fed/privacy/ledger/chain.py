"""A ledger's lines: each holds the hash of the line before, so that none can be changed, dropped or moved unseen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NoReturn

from hbdp_fed.privacy.ledger.entries import KINDS, Entry
from hbdp_fed.strict_json import dumps, to_plain

START = "0" * 64
"""What the first line has as its ``previous``."""

TIMES = frozenset({"time", "seconds"})
"""Keys that no hash covers: they differ between a run and its repetition, and nothing is accounted by them."""


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


def kind_of(entry: Entry) -> str:
    """What a line says that it is."""
    return next(name for name, kind in KINDS.items() if isinstance(entry, kind))


def key_of(name: str) -> str:
    """The key under which a field is written."""
    return "request" if name == "kind" else name


_LATER = frozenset({"unit", "patients"})
"""Fields that were not always there, and are not written where they are None: older ledgers stay intact."""


def _figures(entry: Entry) -> dict[str, Any]:
    plain = to_plain(entry)
    return {key_of(name): value for name, value in plain.items() if name not in _LATER or value is not None}


def sealed(entry: Entry, head: Head, time: str) -> dict[str, Any]:
    """The line that follows ``head``."""
    line = {"seq": head.count, "kind": kind_of(entry), **_figures(entry), "time": time, "previous": head.hash}
    return {**line, "hash": line_hash(line)}


def now() -> str:
    """The time as lines hold it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _is_utc(time: Any) -> bool:
    try:
        return datetime.fromisoformat(time).utcoffset() == timedelta(0)
    except (TypeError, ValueError):
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def opened(raw: bytes, head: Head) -> tuple[Entry, str]:
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
    if dumps(sealed(entry, head, line["time"])).encode("ascii") != raw:
        raise ValueError("was changed: the same values are written in another way than a ledger writes them")
    return entry, found


def _entry(line: Mapping[str, Any]) -> Entry:
    name = line["kind"]
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"is of an unknown kind: {name!r}")
    kind = KINDS[name]
    wanted = {key_of(item.name): item.name for item in fields(kind)}
    given = {key: value for key, value in line.items() if key not in ("seq", "kind", "time", "previous", "hash")}
    if not set(wanted) - _LATER <= set(given) <= set(wanted):
        raise ValueError(f"is a {name} with other keys than {', '.join(wanted)}")
    return kind(**{wanted[key]: value for key, value in given.items()})
