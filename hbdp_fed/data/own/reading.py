"""What every kind of file has in common: a look at the header, then the pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hbdp_fed.data.contract import as_floats
from hbdp_fed.data.defects import SHAPE, Defect, Found
from hbdp_fed.data.own.table import Row

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Header:
    """What a record's headers promise.

    Attributes:
        channels: How many its image has.
        dtype: Of the image: uint8, or float32.
    """

    channels: int
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Sample:
    """A record as the contract has it.

    Attributes:
        image: (C, *spatial), uint8 or float32 in [0, 1].
        mask: int64 (*spatial); None where the label is not in a file.
        spacing: The size of a pixel or voxel in mm; None where it is unknown.
    """

    image: Tensor
    mask: Tensor | None = None
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Readings:
    """Records as they were read.

    Attributes:
        kept: The positions of those that could be read, ascending.
        images: Theirs, (n, C, *spatial).
        masks: Theirs, int64 (n, *spatial); None where the labels are not in files.
        spacings: Each one's.
        found: What is wrong with the others.
    """

    kept: Sequence[int]
    images: Tensor
    masks: Tensor | None
    spacings: Sequence[tuple[float, ...] | None]
    found: Sequence[Found]


class RecordReader(Protocol):
    """Reads the records of one kind of file."""

    @property
    def at_once(self) -> int:
        """How many records are in memory at the same time; as many threads read them as there are processors."""
        ...

    def inspect(self, row: Row) -> Header:
        """Look at the headers of a record's files, not at their pixels.

        Raises:
            Defect: if the record cannot be used.
        """
        ...

    def read(self, row: Row) -> Sample:
        """Read a record.

        Raises:
            Defect: if the record cannot be used.
        """
        ...


def inspect_all(reader: RecordReader, rows: Sequence[Row]) -> tuple[dict[int, Header], list[Found]]:
    """Headers by the rows' positions, and what is wrong with all others.

    A record with another number of channels than most is wrong, too.
    """
    headers: dict[int, Header] = {}
    found: dict[int, Found] = {}
    for position, seen in enumerate(_attempted(reader.inspect, rows, reader.at_once)):
        if isinstance(seen, Found):
            found[position] = seen
        else:
            headers[position] = seen
    counts = [header.channels for header in headers.values()]
    usual = max(set(counts), key=lambda count: (counts.count(count), -count), default=0)
    for position in [position for position, header in headers.items() if header.channels != usual]:
        own = headers.pop(position).channels
        found[position] = Defect(SHAPE, f"has {own} channels, but most records have {usual}").of(rows[position].path)
    return headers, [found[position] for position in sorted(found)]


def read_all(reader: RecordReader, rows: Sequence[Row], *, dtype: torch.dtype) -> Readings:
    """Read records one after the other into one tensor.

    Args:
        reader: Who reads them.
        rows: Which.
        dtype: Of the images: float32 if a single one has it.
    """
    kept: list[int] = []
    images = torch.empty(0, dtype=dtype)
    masks: Tensor | None = None
    spacings: list[tuple[float, ...] | None] = []
    found: list[Found] = []
    for position, sample in enumerate(_attempted(reader.read, rows, reader.at_once)):
        if isinstance(sample, Found):
            found.append(sample)
            continue
        if not kept:
            images = torch.empty((len(rows), *sample.image.shape), dtype=dtype)
            masks = None if sample.mask is None else torch.empty((len(rows), *sample.mask.shape), dtype=torch.int64)
        images[len(kept)] = as_floats(sample.image) if dtype == torch.float32 else sample.image
        if masks is not None and sample.mask is not None:
            masks[len(kept)] = sample.mask
        spacings.append(sample.spacing)
        kept.append(position)
    count = len(kept)
    return Readings(kept, images[:count], None if masks is None else masks[:count], spacings, found)


def _attempted(work: Callable[[Row], Answer], rows: Sequence[Row], at_once: int) -> Iterator[Answer | Found]:
    def attempt(row: Row) -> Answer | Found:
        try:
            return work(row)
        except Defect as defect:
            return defect.of(row.path)

    # Pillow, zlib and NumPy work outside of Python's lock.
    with ThreadPoolExecutor(max_workers=min(at_once, os.cpu_count() or 1)) as pool:
        for start in range(0, len(rows), at_once):
            yield from pool.map(attempt, rows[start : start + at_once])
