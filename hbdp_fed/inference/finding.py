"""Image files and folders, as a person names them, to a list of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.errors import DataFileError

PICTURE, VOLUME, ARRAY, DICOM = "picture", "volume", "array", "dicom"

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    PICTURE: (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"),
    VOLUME: (".nii.gz", ".nii"),
    ARRAY: (".npy", ".npz"),
    DICOM: (".dcm", ".dicom"),
}
"""The kinds of files that can hold an image, by the endings of their names, in small letters."""


@dataclass(frozen=True)
class ImageFile:
    """One file.

    Attributes:
        path: Where.
        kind: A key of :data:`SUFFIXES`.
    """

    path: Path
    kind: str

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        lower = self.path.name.lower()
        ending = next(suffix for suffix in SUFFIXES[self.kind] if lower.endswith(suffix))
        return self.path.name[: -len(ending)]


def find_images(paths: Sequence[Path]) -> list[ImageFile]:
    """The files that are named, and those in the folders that are named and below them, in the order of their paths.

    Of a folder, files of other kinds and hidden ones are left out; a file that is named itself has to be an image.

    Args:
        paths: Files and folders.

    Raises:
        DataFileError: if one of them does not exist or is no image, a folder holds none, or a file is named twice.
    """
    found: dict[Path, ImageFile] = {}
    for path in paths:
        for file in _inside(path) if path.is_dir() else [_named(path)]:
            place = file.path.resolve()
            if place in found:
                raise DataFileError(file.path, "is named twice")
            found[place] = file
    return list(found.values())


def _kind_of(path: Path) -> str | None:
    lower = path.name.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if lower.endswith(suffixes)), None)


def _named(path: Path) -> ImageFile:
    if not path.is_file():
        raise DataFileError(path, "there is no such file or folder")
    kind = _kind_of(path)
    if kind is None:
        raise DataFileError(path, f"is no image by its name, which must end in one of: {', '.join(_known())}")
    return ImageFile(path, kind)


def _inside(folder: Path) -> list[ImageFile]:
    visible = (path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder)))
    files = [ImageFile(path, kind) for path in visible if path.is_file() and (kind := _kind_of(path)) is not None]
    if not files:
        raise DataFileError(folder, f"holds no image; names must end in one of: {', '.join(_known())}")
    return files


def _is_hidden(path: Path) -> bool:
    # Archives that were packed on a Mac have a hidden twin of every file.
    return any(part.startswith(".") for part in path.parts)


def _known() -> Iterator[str]:
    for suffixes in SUFFIXES.values():
        yield from suffixes
