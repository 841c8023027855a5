"""Pictures that a manifest lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.defects import SHAPE, Defect
from hbdp_fed.data.own.classes import classes_of_mask
from hbdp_fed.data.own.loading import load_listed, open_listing
from hbdp_fed.data.own.reading import Header, Sample
from hbdp_fed.data.own.table import Row
from hbdp_fed.data.photographs import CHANNELS
from hbdp_fed.data.pictures import is_deep, picture_preparation, read_mask, read_picture, upright_size
from hbdp_fed.errors import unknown_choice


def load_imagefolder(
    *,
    root: Path,
    manifest: str | None = None,
    folder: str | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int = 64,
    mode: str = "L",
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read the pictures that a manifest lists (see :func:`hbdp_fed.data.own.table.read_table`).

    Args:
        root: What relative paths of ``manifest`` and ``folder`` start from.
        manifest: The CSV table.
        folder: What the paths in it start from; None is the manifest's own folder.
        class_names: The classes; None takes the labels that occur, sorted, or background and foreground of masks.
        image_size: Height and width that each picture is scaled to, whatever its sides were, at least 16.
        mode: ``L`` for grey, or ``RGB``.
        val_fraction: The share of patients in the validation split, where the table does not name it.
        test_fraction: The same of the test split.
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of records that cannot be used.

    Returns:
        Images (N, C, image_size, image_size): uint8, or float32 if a picture has 16 bits. Groups are the patients, if
        the table names them.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the manifest is none, records are bad under ``stop``, or a split is left without a record.
    """
    check_integer("data.image_size", image_size, minimum=16)
    if mode not in CHANNELS:
        raise unknown_choice("data.mode", mode, CHANNELS)
    listing = open_listing(
        root=root,
        manifest=manifest,
        folder=folder,
        class_names=class_names,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        on_bad_record=on_bad_record,
    )
    return load_listed(
        "imagefolder",
        listing,
        reader=PictureReader(mode, image_size, listing.question.class_names),
        preparation=picture_preparation(mode, image_size),
        record="image",
    )


@dataclass(frozen=True)
class PictureReader:
    """Reads pictures and their masks.

    Attributes:
        mode: ``L`` or ``RGB``.
        image_size: Height and width of what is returned.
        class_names: Of masks.
    """

    mode: str
    image_size: int
    class_names: Sequence[str]
    at_once: int = 256

    def inspect(self, row: Row) -> Header:
        """As in the protocol."""
        header = Header(CHANNELS[self.mode], torch.float32 if is_deep(row.path) else torch.uint8)
        if row.mask is not None:
            size, own = upright_size(row.path), upright_size(row.mask)
            if size != own:
                raise Defect(
                    SHAPE, f"has {own[0]}x{own[1]} pixels, but its image {row.path.name} {size[0]}x{size[1]}", row.mask
                )
        return header

    def read(self, row: Row) -> Sample:
        """As in the protocol."""
        image = read_picture(row.path, mode=self.mode, size=(self.image_size, self.image_size))
        return Sample(image, None if row.mask is None else scaled_mask(row.mask, self.class_names, self.image_size))


def scaled_mask(path: Path, class_names: Sequence[str], image_size: int) -> torch.Tensor:
    """The classes of a picture's pixels, int64 (image_size, image_size), each that of the nearest one.

    Raises:
        Defect: if the mask cannot be read or holds no or unknown classes.
    """
    try:
        classes = classes_of_mask(read_mask(path), class_names)
    except Defect as defect:
        raise Defect(defect.kind, defect.text, path) from defect
    scaled = Image.fromarray(classes).resize((image_size, image_size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(scaled).astype(np.int64))
