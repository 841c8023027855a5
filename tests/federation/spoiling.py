"""What somebody who means harm makes of a genuine message, drawn at random."""

from __future__ import annotations

import gc
import io
import resource
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbdp_fed.errors import shown
from hbdp_fed.federation.wire import MessageError

_Read = TypeVar("_Read")

FEW_AND_MANY = [300, pytest.param(50_000, marks=pytest.mark.slow)]
"""How many messages a test looks at."""

_FIRST, _PORTION = 20, 1_000
_MOST_OF_ONE, _MOST_OF_ALL = 32 * 1024, 64 * 1024


def message(content: RecordDict) -> Message:
    return Message(content, 1, MessageType.TRAIN)


def npy(value: Any, **more: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, **more)
    return stream.getvalue()


def raw(data: bytes, *, stype: str = "numpy.ndarray") -> Array:
    """What says of itself that it is two numbers, whatever it is."""
    return Array("float64", (2,), stype, data)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_BINARY = st.binary(max_size=40) | st.sampled_from([bytes(size) for size in (31, 32, 33, 86)])
_SCALARS = _INTEGERS | st.floats() | st.text(max_size=20) | _BINARY | st.booleans()
_SETTINGS = st.one_of(
    _SCALARS,
    *(st.lists(items, max_size=3) for items in (st.integers(0, 9), st.text(max_size=3), _BINARY, st.booleans())),
)
_LIKE = {int: _INTEGERS, float: st.floats(), str: st.text(max_size=20), bytes: _BINARY, bool: st.booleans()}
_FIGURES = _INTEGERS | st.floats() | st.lists(st.floats(), max_size=3)
_GENUINE = npy(np.zeros(3))
_DATA = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda rest: b"\x93NUMPY\x01\x00" + rest),
    st.text(max_size=80).map(lambda text: header(text.encode("ascii", "replace").decode())),
    st.builds(lambda cut, value: npy(np.full(3, value))[:cut], st.integers(0, 160), st.floats()),
    st.builds(
        lambda place, byte: bytes((*_GENUINE[:place], byte, *_GENUINE[place + 1 :])),
        st.integers(0, len(_GENUINE) - 1),
        st.integers(0, 255),
    ),
)


@st.composite
def spoiled(draw: st.DrawFn, genuine: Callable[[], RecordDict]) -> RecordDict:
    """A genuine message of which some parts are missing, others are new, and others say something else."""
    content = genuine()
    for name in draw(st.lists(st.sampled_from([*content, "failure", "config"]), min_size=1, max_size=4)):
        record = content.get(name)
        if record is None:
            content[name] = ConfigRecord(draw(st.dictionaries(st.text(max_size=8), _SETTINGS, max_size=3)))
        elif isinstance(record, ArrayRecord):
            stype = draw(st.sampled_from(["numpy.ndarray", "x"]))
            record[draw(st.sampled_from([*record, "z"]))] = raw(draw(_DATA), stype=stype)
        elif draw(st.integers(0, 4)) == 0:
            del content[name]
        else:
            key = draw(st.sampled_from([*record, "z"]))
            values = _FIGURES if isinstance(record, MetricRecord) else _SETTINGS
            old = record.get(key)
            record[key] = draw(_items(old) | values if isinstance(old, list) and old else values)
    return content


@st.composite
def _items(draw: st.DrawFn, old: list[Any]) -> list[Any]:
    """A list of as many or a few more or less, of which one item is another, or two are the same."""
    items, place = list(old), draw(st.integers(0, len(old) - 1))
    how = draw(st.sampled_from(["drop", "repeat", "move", "replace", "anything", "many"]))
    if how == "drop":
        del items[place]
    elif how == "repeat":
        items[place] = items[0]
    elif how == "move":
        items = [*items[place:], *items[:place]]
    elif how == "replace":
        items[place] = draw(_LIKE[type(items[place])])
    elif how == "many":
        items *= draw(st.integers(2, 30))
    else:
        items = draw(st.lists(draw(st.sampled_from(list(_LIKE.values()))), max_size=4))
    return items


def told(read: Callable[[Message], _Read], content: RecordDict) -> _Read | None:
    """What was read; None where it was refused, which must be short and do nothing to a terminal.

    Either way reading takes no memory worth naming.
    """
    sent, before = message(content), _most_memory()
    try:
        return read(sent)
    except MessageError as error:
        text = str(error)
        if len(text) > 500 or shown(text) != text:
            pytest.fail(f"an error that repeats what was sent: {text!r}")
        return None
    finally:
        taken = _most_memory() - before
        if taken > _MOST_OF_ONE:
            pytest.fail(f"reading one message took {taken / 1024:.0f} MiB")


def look_at_many(genuine: Callable[[], RecordDict], check: Callable[[RecordDict], None], examples: int) -> None:
    """Check so many spoiled messages, of which nothing is kept, however many there are."""

    def look(number: int) -> None:
        many = settings(max_examples=number, database=None, suppress_health_check=list(HealthCheck))
        many(given(spoiled(genuine))(check))()

    # Hypothesis reads the constants of all modules first, which takes the more the more are loaded.
    look(_FIRST)
    before = _memory()
    # In portions: of one, hypothesis keeps every example.
    for done in range(0, examples, _PORTION):
        look(min(examples - done, _PORTION))
    kept = _memory() - before
    assert kept < _MOST_OF_ALL, f"{examples} messages left {kept / 1024:.0f} MiB behind"


def _memory() -> float:
    """What the process holds now and the system could not take back, in KiB."""
    gc.collect()
    held = psutil.Process().memory_info()
    return float(held.rss - held.shared) / 1024


def _most_memory() -> float:
    """The most that it has held so far, in KiB."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
