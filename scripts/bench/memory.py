"""How much memory a piece of work takes at its peak, beyond what was there before it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_MEMORY_EVENT = "[memory]"

Event = tuple[int, int]
"""An address and the bytes that were allocated there, or minus the bytes that were freed."""


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that PyTorch's allocator held for ``work`` at any moment, on ``device``.

    Weights and batch are there before and do not count, and neither does anything that libraries take past PyTorch.
    """
    gc.collect()
    return _METERS[device.type](work, device)


def peak_of(events: Iterable[Event]) -> int:
    """The highest running total of ``events``, which come in the order of time.

    A block that was there before the first event and is freed by one of them counts as nothing: it is not memory of the
    work's own that it gives back.
    """
    held: dict[int, int] = {}
    total = peak = 0
    for address, size in events:
        if size > 0:
            held[address] = size
            total += size
            peak = max(peak, total)
        else:
            total -= held.pop(address, 0)
    return peak


def _cpu_peak(work: Callable[[], object], device: torch.device) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    # The public list of events leaves out what happens inside an operator, where most temporary memory is.
    tree = profiled.profiler.kineto_results.experimental_event_tree()
    found = sorted((e for e in _walk(tree) if e.name == _MEMORY_EVENT), key=lambda event: event.start_time_ns)
    return peak_of((e.extra_fields.ptr, e.extra_fields.alloc_size) for e in found)


def _walk(roots: Iterable[Any]) -> Iterator[Any]:
    """A profile's events with everything below them, in no particular order."""
    waiting = list(roots)
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        yield event


def _cuda_peak(work: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


_METERS: Mapping[str, Callable[[Callable[[], object], torch.device], int]] = {"cpu": _cpu_peak, "cuda": _cuda_peak}
