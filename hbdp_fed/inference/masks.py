"""A segmentation's answer as a file on the grid of the image it is about."""

from __future__ import annotations

import colorsys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hbdp_fed.data.volumes import on_file_grid, write_nifti
from hbdp_fed.inference.finding import ImageFile
from hbdp_fed.inference.reading import ReadImage

MOST_CLASSES = 256
"""A mask has a byte a pixel."""


@dataclass
class MaskWriter:
    """Writes masks into a folder, a file an image: NIfTI of a volume, PNG of a picture, npy of an array.

    A mask has its image's own size and, of a volume, its grid: each pixel has the class of the nearest one that the
    model answered for, and the background where the model did not look.

    Attributes:
        folder: Where; it is there.
    """

    folder: Path
    _taken: Counter[str] = field(default_factory=Counter)

    def write(self, source: ImageFile, image: ReadImage, classes: NDArray[Any]) -> tuple[Path, NDArray[np.uint8]]:
        """The file that was written, and what it holds.

        Args:
            source: The file that the image is from.
            image: As it was read.
            classes: A class for each pixel of ``image.pixels``, below :data:`MOST_CLASSES`.
        """
        mask: NDArray[np.uint8] = classes.astype(np.uint8)
        if image.affine is not None and image.original_affine is not None and image.original is not None:
            mask = on_file_grid(mask, image.affine, like=image.original_affine, shape=image.original)
            path = self._free(source.stem, ".nii.gz")
            write_nifti(path, mask, image.original_affine)
        elif image.original is not None:
            height, width = image.original
            picture = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
            mask = np.asarray(picture)
            path = self._free(source.stem, ".png")
            # A palette: viewers show colours, programs read classes.
            picture.putpalette(_palette())
            picture.save(path)
        else:
            path = self._free(image.name.replace(source.path.name, source.stem), ".npy")
            np.save(path, mask, allow_pickle=False)
        return path, mask

    def _free(self, stem: str, suffix: str) -> Path:
        """A name that no other mask has: images of several folders may share theirs."""
        plain = stem.replace(":", "_").replace("/", "_").replace("[", "_").replace("]", "")
        name = f"{plain}_mask"
        self._taken[name] += 1
        number = self._taken[name]
        return self.folder / f"{name}{'' if number == 1 else f'-{number}'}{suffix}"


def _palette() -> list[int]:
    """Black for the background, and for every other class a colour unlike its neighbours'."""
    golden = 0.618034
    colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(number * golden % 1, 0.75, 1.0) for number in range(1, 256))]
    return [round(255 * part) for colour in colours for part in colour]
