"""Image files through a released model, a few at a time, so that their number does not matter to memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.inference import (
    Answer,
    ImageFile,
    MaskWriter,
    ReadImage,
    ReleasedModel,
    Unusable,
    answers_of,
    outlined,
)
from hbdp_fed.inference.finding import PICTURE
from hbdp_fed.inference.reading import Reader

_PICTURES_AT_ONCE, _OTHERS_AT_ONCE = 64, 4
"""A volume takes gigabytes while it is prepared, and an array may hold thousands of images."""


@dataclass(frozen=True)
class Asking:
    """Images on their way to a model.

    Attributes:
        files: In the order in which answers come.
        readers: By kind of file.
        bad: Where files that cannot be used go.
    """

    files: Sequence[ImageFile]
    readers: Mapping[str, Reader]
    bad: BadRecords

    def check(self) -> Iterator[ImageFile]:
        """Read every file once and forget it again, yielding each that was read.

        Raises:
            DataFileError: for the first one that cannot be used, under ``stop``.
        """
        for chunk in self._chunks():
            for file, _ in self._read(chunk):
                yield file

    def answers(self, model: ReleasedModel, masks: MaskWriter | None) -> Iterator[tuple[ImageFile, list[Answer]]]:
        """Each file with the answers of its images.

        Args:
            model: Who is asked.
            masks: Of a segmentation, what writes its masks.

        Raises:
            DataFileError: if a file cannot be used, under ``stop``.
            TrainingDiverged: if the model answers with something that is no number.
        """
        for chunk in self._chunks():
            read = list(self._read(chunk))
            if not read:
                continue
            pairs = [(file, image) for file, images in read for image in images]
            found = list(_asked(model, pairs, masks))
            for file, own in groupby(zip(pairs, found, strict=True), key=lambda one: one[0][0]):
                yield file, [answer for _, answer in own]

    def _chunks(self) -> Iterator[Sequence[ImageFile]]:
        few = any(file.kind != PICTURE for file in self.files)
        size = _OTHERS_AT_ONCE if few else _PICTURES_AT_ONCE
        for start in range(0, len(self.files), size):
            yield self.files[start : start + size]

    def _read(self, chunk: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, list[ReadImage]]]:
        def attempt(file: ImageFile) -> tuple[ImageFile, list[ReadImage] | str]:
            try:
                return file, self.readers[file.kind](file.path)
            except Unusable as error:
                return file, str(error)

        # Pillow, NumPy and nibabel decode outside of Python's lock.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for file, found in pool.map(attempt, chunk):
                if isinstance(found, str):
                    self.bad.refuse(file.path, found)
                else:
                    yield file, found


def _asked(
    model: ReleasedModel, pairs: Sequence[tuple[ImageFile, ReadImage]], masks: MaskWriter | None
) -> Iterator[Answer]:
    said = model.ask(torch.stack([image.pixels for _, image in pairs]))
    names = [_full_name(file.path, image) for file, image in pairs]
    if masks is None:
        yield from answers_of(model, names, said)
        return
    for name, (file, image), classes in zip(names, pairs, said, strict=True):
        path, mask = masks.write(file, image, classes)
        yield outlined(model, name, mask, str(path))


def _full_name(path: Path, image: ReadImage) -> str:
    """The path as it was typed, and which of the file's images it is."""
    return str(path) + image.name.removeprefix(path.name)
