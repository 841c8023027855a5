"""From what a person names to image files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbdp_fed.errors import DataFileError
from hbdp_fed.inference import find_images


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_and_what_is_no_image_is_left_out(tmp_path: Path) -> None:
    names = ("b/2.PNG", "b/deep/3.nii.gz", "b/4.DCM", "a.npy", "b/notes.txt", "b/._2.png", ".hidden/4.png")
    touch(*(tmp_path / name for name in names))
    found = find_images([tmp_path])
    assert [(file.path.relative_to(tmp_path).as_posix(), file.kind, file.stem) for file in found] == [
        ("a.npy", "array", "a"),
        ("b/2.PNG", "picture", "2"),
        ("b/4.DCM", "dicom", "4"),
        ("b/deep/3.nii.gz", "volume", "3"),
    ]


def test_files_come_in_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    touch(tmp_path / "b.png", tmp_path / "a.png")
    assert [file.stem for file in find_images([tmp_path / "b.png", tmp_path / "a.png"])] == ["b", "a"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.png"], "there is no such file or folder"),
        (["notes.txt"], r"is no image by its name, which must end in one of: \.png"),
        (["empty"], "holds no image"),
        (["a.png", "a.png"], "is named twice"),
        (["a.png", "."], "is named twice"),
    ],
)
def test_what_names_no_image_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match=message):
        find_images([tmp_path / name for name in names])
