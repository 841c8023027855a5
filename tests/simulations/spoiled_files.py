"""Files that programs read, as accidents and malicious people leave them, drawn for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml
from hypothesis import strategies as st

_BOMB = "a: &a [xxxxxxxxxx, xxxxxxxxxx]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
_WHOLE = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"null", b"{}", b"[]", b"0", b'"', b"a: [", b"{", b"{'a': 1}", b"NaN",
    b"[" * 100_000, b"- " * 50_000 + b"a", b'{"a":' * 100_000, b"[" * 900 + b"]" * 900, _BOMB.encode(),
    b"a: &a [*a]", b"a: &a {<<: *a}", b"a: *a", b"!!python/object/apply:os.system ['true']",
    b"a: !!python/name:os.system ''", b"a: !!bool x", b"a: !!int ''", b"a: 2020-99-99", b"a: " + b"1" * 5000,
    b"1" * 5000, b"? {a: b}\n: 1", b"--- a\n--- b", b"%YAML 9.9\n---\na", b"PK\x03\x04", b"\x93NUMPY\x01\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\x00\x00\x00\x00\x00\x00\x00{}", b"x" * 3_000_000,
]  # fmt: skip
"""In place of everything."""

ODD: list[Any] = [
    None, True, False, 0, -1, 7, 10**12, 2**53, 2**64, -(10**30), 10**400, 0.5, -0.0, 1e-300, 1e300, float("inf"),
    float("-inf"), float("nan"), "", "a", "inf", "nan", "1e12", "???", "${oc.env:HOME}", "${eps}", "../../../../x", "/",
    "a\x00b", "\x1b[2J", "[bold]a[/red]", "<script>", "\u202e", "é", "x" * 5000, [], [None], [[]], [1, "a", {}], {},
    {"a": None}, {"": {}}, {"a": {"b": [1]}}, {"name": "x"}, "2020-01-01", "auto", "none", "phantom", "median",
]  # fmt: skip
"""In place of one value."""

_ODD = st.sampled_from(ODD).map(deepcopy)
_NEW_KEYS = st.sampled_from(["a", "", "name", "_target_", "<<", "1", "é", "x" * 300])


def whole_files() -> st.SearchStrategy[bytes]:
    """What is no file of the kind at all."""
    return st.sampled_from(_WHOLE) | st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode())


@st.composite
def damaged(draw: st.DrawFn, genuine: bytes) -> bytes:
    """Cut off, or with some bytes that are others, more or fewer."""
    if draw(st.booleans()):
        return genuine[: draw(st.integers(0, len(genuine)))]
    data = bytearray(genuine)
    for _ in range(draw(st.integers(1, 3))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data[place : place + length] = draw(st.binary(max_size=8))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, genuine: Any, write: Callable[[Any], bytes]) -> bytes:
    """Of the right form, with one to three values that are others, missing or new."""
    value = deepcopy(genuine)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = _place(draw, value)
        if holder is None:
            return write(draw(_ODD))
        what = draw(st.integers(0, 5))
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[draw(_NEW_KEYS)] = draw(_ODD)
        elif what == 1:
            holder.append(deepcopy(holder[key]))
        else:
            holder[key] = draw(_ODD)
    return write(value)


def _place(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """Some mapping or list within ``value`` and a key of it; every step goes deeper or stays."""
    holder: Any = None
    key: Any = None
    while isinstance(value, dict | list) and value:
        holder, key = value, draw(st.sampled_from(list(value) if isinstance(value, dict) else list(range(len(value)))))
        value = value[key]
        if draw(st.integers(0, 3)) == 0:
            break
    return holder, key


def as_json(value: Any) -> bytes:
    """With NaN and all: nobody has to write strict JSON."""
    return json.dumps(value).encode()


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_lines(value: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in value)


def spoiled(name: str, genuine: bytes) -> st.SearchStrategy[bytes]:
    """A file of that name that is not as it was."""
    bytewise = st.one_of(whole_files(), damaged(genuine))
    if name.endswith(".yaml"):
        return st.one_of(bytewise, *[changed(yaml.safe_load(genuine), as_yaml)] * 3)
    if name.endswith(".json"):
        return st.one_of(bytewise, *[changed(json.loads(genuine), as_json)] * 3)
    if name.endswith(".jsonl"):
        lines = [json.loads(line) for line in genuine.splitlines()]
        return st.one_of(bytewise, changed(lines, as_lines))
    if name.endswith(".safetensors"):
        return st.one_of(bytewise, _changed_header(genuine))
    return bytewise


def _changed_header(genuine: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file with another header before the same numbers."""
    length = int.from_bytes(genuine[:8], "little")
    header, rest = json.loads(genuine[8 : 8 + length]), genuine[8 + length :]
    return changed(header, lambda value: len(text := as_json(value)).to_bytes(8, "little") + text + rest)
