"""The phantom: a data set of invented tissue with and without a lesion, drawn from a seed, that needs no files."""

from __future__ import annotations

import torch
from torch import Tensor

from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.data.contract import ImageDataset, Preparation, Records
from hbdp_fed.data.tissue import LesionStyle, draw_lesions, draw_tissue
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator

_GREY_LEVELS = 255
_MOST_PIXELS = 2**30
_BLOCK = 2048
"""How many records are drawn at once: what is computed on the way takes many times the memory of the images."""


def load_phantom(
    *,
    seed: int = 0,
    num_train: int = 2000,
    num_val: int = 400,
    num_test: int = 1000,
    image_size: int = 28,
    prevalence: float = 0.5,
) -> ImageDataset:
    """Draw the phantom: the task is to tell whether a lesion is in the image.

    Vessels, dots and nodules are in both classes. Each split has a stream of its own, so the number of records in one
    does not change another.

    Args:
        seed: The data set's own seed; a run's seed does not enter, so that runs with different seeds share their data.
        num_train: Records in the training split, at least 2.
        num_val: Records in the validation split, at least 2.
        num_test: Records in the test split, at least 2.
        image_size: Height and width in pixels, at least 16.
        prevalence: The share of records with a lesion, strictly between 0 and 1; every split has at least one record
            of each class.

    Returns:
        Grey images with 256 grey levels and the lesions' outlines; healthy records have empty ones.

    Raises:
        SettingError: naming ``data.<option>``, if a value cannot be used.
    """
    check_integer("data.seed", seed, minimum=0)
    check_integer("data.image_size", image_size, minimum=16)
    for split, count in (("train", num_train), ("val", num_val), ("test", num_test)):
        if check_integer(f"data.num_{split}", count, minimum=2) * image_size**2 > _MOST_PIXELS:
            raise SettingError(
                f"data.num_{split}",
                f"images of {image_size} pixels a side can be {_MOST_PIXELS // image_size**2} at most",
            )
    check_number("data.prevalence", prevalence, low=0.0, high=1.0, open_ends=True)
    splits = {
        split: _draw_split(
            count,
            image_size=image_size,
            prevalence=prevalence,
            stream=generator(seed, "phantom", split),
        )
        for split, count in (("train", num_train), ("val", num_val), ("test", num_test))
    }
    return ImageDataset(
        name="phantom",
        task="binary",
        class_names=("healthy", "lesion"),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        preparation=Preparation(kind="drawn", words="images are drawn in [0, 1], in steps of 1/255"),
        licence="none is needed: the images are drawn by this program",
    )


def _draw_split(count: int, *, image_size: int, prevalence: float, stream: torch.Generator) -> Records:
    num_lesions = min(max(round(count * prevalence), 1), count - 1)
    labels = (torch.randperm(count, generator=stream) < num_lesions).long()
    images = torch.empty(count, 1, image_size, image_size)
    masks = torch.empty(count, 1, image_size, image_size, dtype=torch.bool)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        images[block], masks[block] = _draw_images(labels[block].bool()[:, None, None, None], image_size, stream)
    return Records(images=images, labels=labels, masks=masks)


def _draw_images(present: Tensor, image_size: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and outlines of records with a lesion or without, as bool (N, 1, 1, 1) says."""
    tissue = draw_tissue(len(present), image_size, stream)
    lesions, outlines = draw_lesions(len(present), image_size, LesionStyle(), stream)
    images = (tissue + lesions * present).clamp(0, 1)
    # Whole grey levels, as images come from a scanner; this also hides nearly all last-bit differences of processors.
    return (images * _GREY_LEVELS).round() / _GREY_LEVELS, outlines & present
