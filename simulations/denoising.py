"""The denoiser that an adversary puts reconstructions through: on which images it is trained, and when it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hbdp_fed.adversary.denoising import Denoiser, check_images, train_denoiser
from hbdp_fed.data import ImageDataset, as_floats, load_dataset
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator

KEY = "adversary.denoiser"
NONE = "none"

_STEPS = 300
_PHANTOMS = 512
_SMALLEST_PHANTOM = 16


def _public(dataset: ImageDataset) -> Tensor:
    """The images that a server has anyway."""
    return as_floats(dataset.val.images)


def _check_phantom(dataset: ImageDataset) -> None:
    channels, *sides = dataset.val.images.shape[1:]
    if channels != 1 or len(sides) != 2 or sides[0] != sides[1] or sides[0] < _SMALLEST_PHANTOM:
        shown = "x".join(str(side) for side in sides)
        raise SettingError(
            KEY,
            f"phantom draws square grey images of at least {_SMALLEST_PHANTOM} pixels a side, these have {channels} "
            f"channels and {shown}; set public or none",
        )


def _phantom(dataset: ImageDataset) -> Tensor:
    """Drawn images of the same size, for whoever has no public ones."""
    sizes = {"num_train": _PHANTOMS, "num_val": 2, "num_test": 2}
    drawn = load_dataset("phantom", options={"image_size": dataset.val.images.shape[-1], **sizes})
    return as_floats(drawn.train.images)


DENOISERS: Mapping[str, Callable[[ImageDataset], Tensor]] = {"public": _public, "phantom": _phantom}
"""By the setting's value, the images to learn from."""

_CHECKS: Mapping[str, Callable[[ImageDataset], None]] = {
    "public": lambda dataset: check_images(dataset.val.images),
    "phantom": _check_phantom,
}
"""By the same, what raises where there are none to learn from, without drawing or converting any."""


def check_denoiser(name: str, dataset: ImageDataset) -> None:
    """Whether a denoiser can be trained, before anything is.

    Raises:
        SettingError: if it cannot.
    """
    if name != NONE:
        _CHECKS[name](dataset)


def trained_denoiser(name: str, dataset: ImageDataset, *, seed: int, device: torch.device) -> Denoiser | None:
    """The denoiser; None where there shall be none. Takes about half a minute for images of 28 x 28.

    Args:
        name: A key of :data:`DENOISERS`, or ``none``.
        dataset: What was trained on; its public split is read, or its shape.
        seed: The run's.
        device: Where to train.
    """
    if name == NONE:
        return None
    stream = generator(seed, "adversary", "denoiser", name)
    return train_denoiser(DENOISERS[name](dataset), steps=_STEPS, generator=stream, device=str(device))
