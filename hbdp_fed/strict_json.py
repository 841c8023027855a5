"""JSON that every parser reads: RFC 8259 has no infinity and no NaN."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from hbdp_fed.errors import shown


def to_plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as plain JSON values; infinities as ``"inf"``, NaN (no value) as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
    return value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """``value`` as strict JSON, in the order of its own keys (see :func:`to_plain`)."""
    return json.dumps(to_plain(value), indent=indent, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The inverse of :func:`dumps`, of a text that somebody else may have written; infinities stay texts.

    Raises:
        ValueError: for what is no strict JSON, and for lists nested so deeply that nothing could go through them.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def harmless(value: Any) -> Any:
    """Plain values with every text as it can be shown to people (see :func:`hbdp_fed.errors.shown`)."""
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [harmless(item) for item in value]
    return shown(value) if isinstance(value, str) else value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
