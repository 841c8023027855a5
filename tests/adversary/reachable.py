"""Every tensor and every plain value that can be reached from an object, by whatever it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor


def reachable(thing: Any, path: str = "", within: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What ``thing`` holds, with the way there: the tensors, and the values that hold nothing further.

    Fields, mappings with their keys, sequences, sets, attributes of any other object, declared or not; of a tensor its
    gradient, and all of the memory that it is a part of.

    Args:
        thing: Where to start.
        path: The way to it.
        within: What holds it: where that comes again, the walk turns back.
    """
    if any(thing is one for one in within):
        return
    inside: list[tuple[str, Any]] = []
    if isinstance(thing, Tensor):
        yield path, thing
        memory = thing.untyped_storage()
        if memory.nbytes() > thing.numel() * thing.element_size():
            yield f"{path}.memory", torch.empty(0, dtype=thing.dtype).set_(memory)
        if thing.grad is not None:
            inside = [(f"{path}.grad", thing.grad)]
    elif isinstance(thing, str | bytes | int | float | bool | complex | type(None)):
        yield path, thing
    elif isinstance(thing, Mapping):
        for key, part in thing.items():
            inside += [(f"{path} key", key), (f"{path}[{key!r}]", part)]
    elif isinstance(thing, list | tuple | AbstractSet):
        inside = [(f"{path}[{place}]", part) for place, part in enumerate(thing)]
    else:
        held = {field.name: getattr(thing, field.name) for field in _fields(thing)} | getattr(thing, "__dict__", {})
        # What cannot be opened must not pass for empty.
        assert held or dataclasses.is_dataclass(thing), f"{path}: {type(thing).__name__} cannot be looked into"
        inside = [(f"{path}.{name}", part) for name, part in held.items()]
    for way, part in inside:
        yield from reachable(part, way, (*within, thing))


def tensors(thing: Any) -> dict[str, Tensor]:
    """The tensors of :func:`reachable` by the way there."""
    return {path: value for path, value in reachable(thing) if isinstance(value, Tensor)}


def _fields(thing: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(thing) if dataclasses.is_dataclass(thing) and not isinstance(thing, type) else ()
