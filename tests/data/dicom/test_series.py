"""A folder of slices as a volume: Hounsfield units, where each voxel is, and what makes no volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hbdp_fed.data.defects import EMPTY, MISSING, ORIENTATION, OUTSIDE, SHAPE, UNREADABLE, Defect
from hbdp_fed.data.dicom.series import read_series, read_series_volume, slice_files
from tests.data.dicom.writing import CT, POSITION, write_dicom, write_series

VOLUME = np.random.default_rng(0).integers(0, 1500, (12, 5, 7)).astype(np.int16)
ORIENTATIONS, SPACING, SERIES = 0x00200037, 0x00280030, 0x0020000E


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write_series(tmp_path / "ct", VOLUME)


def volume_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = read_series_volume(read_series(folder, root=folder.parent))
    return stored.voxels, stored.affine


def test_slices_are_sorted_by_where_they_lie(series: Path) -> None:
    """The files' names run from the top down, and the tenth comes after the ninth."""
    voxels, affine = volume_of(series)
    np.testing.assert_array_equal(voxels, VOLUME.transpose(2, 1, 0) * 2.0 - 1000)
    # To the right, to the front, up: DICOM counts to the left and to the back.
    np.testing.assert_allclose(affine, [[-1.5, 0, 0, 10], [0, -2, 0, 30], [0, 0, 3, -20], [0, 0, 0, 1]])


def test_any_direction_gives_each_voxel_its_place(tmp_path: Path) -> None:
    """Sagittal slices: rows run back to front, columns top down; the place of a voxel is that of PS3.3, C.7.6.2.1.1."""
    across, down, pixel = np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (2.0, 1.5)
    folder = tmp_path / "sagittal"
    folder.mkdir()
    places = {}
    for number in (2, 0, 1):
        corner = np.array([4.0 * number - 7, -50.0, 80.0])
        attributes = {**CT, ORIENTATIONS: ("DS", [0, 1, 0, 0, 0, -1]), POSITION: ("DS", corner.tolist())}
        pixels = np.arange(35, dtype=np.int16).reshape(5, 7) + 100 * number
        write_dicom(folder / f"{number}.dcm", pixels, attributes)
        for row in range(5):
            for column in range(7):
                places[2.0 * pixels[row, column] - 1000] = corner + across * pixel[1] * column + down * pixel[0] * row
    voxels, affine = volume_of(folder)
    assert len(places) == voxels.size
    for index in np.ndindex(*voxels.shape):
        left, back, up = places[float(voxels[index])]
        np.testing.assert_allclose((affine @ [*index, 1])[:3], [-left, -back, up], atol=1e-9)


def test_a_slice_has_its_own_slope(series: Path) -> None:
    """As in PET."""
    pixels = np.full((5, 7), 10, np.int16)
    write_dicom(series / "IM3.dcm", pixels, {**CT, 0x00281053: ("DS", 5), POSITION: ("DS", [-10, -30, 4])})
    voxels, _ = volume_of(series)
    assert set(np.unique(voxels[:, :, 8])) == {-950.0}


def test_hidden_files_and_an_index_are_no_slices(series: Path) -> None:
    (series / ".DS_Store").write_bytes(b"x")
    (series / "DICOMDIR").write_bytes(b"x")
    assert len(slice_files(series, root=series)) == 12


def _missing(folder: Path) -> None:
    (folder / "IM5.dcm").unlink()


def _twice(folder: Path) -> None:
    (folder / "IM99.dcm").write_bytes((folder / "IM5.dcm").read_bytes())


def _another(folder: Path, *, height: float = 1, **given: tuple[str, object]) -> None:
    attributes = {**CT, POSITION: ("DS", [-10, -30, height]), **{int(tag): value for tag, value in given.items()}}
    write_dicom(folder / "IM4.dcm", VOLUME[0], attributes)


def _other_series(folder: Path) -> None:
    _another(folder, **{str(SERIES): ("UI", "1.2.4")})


def _other_direction(folder: Path) -> None:
    _another(folder, **{str(ORIENTATIONS): ("DS", [0, 1, 0, 1, 0, 0])})


def _skewed(folder: Path) -> None:
    _another(folder, **{str(ORIENTATIONS): ("DS", [1, 0, 0, 0.5, 0.5, 0])})


def _other_pixels(folder: Path) -> None:
    _another(folder, **{str(SPACING): ("DS", [2, 2])})


def _nowhere(folder: Path) -> None:
    _another(folder, **{str(POSITION): ("DS", [-10, "nan", 1])})


def _no_place(folder: Path) -> None:
    write_dicom(folder / "IM4.dcm", VOLUME[0], {SERIES: CT[SERIES]})


def _other_size(folder: Path) -> None:
    write_dicom(folder / "IM4.dcm", VOLUME[0, :4], {**CT, POSITION: ("DS", [-10, -30, 1])})


def _tilted(folder: Path) -> None:
    """Each slice lies half a pixel further back than the one below it."""
    for number in range(12):
        height = 11 - number
        position = ("DS", [-10, -30 + height, -20 + 3 * height])
        write_dicom(folder / f"IM{number}.dcm", VOLUME[height], {**CT, POSITION: position})


@pytest.mark.parametrize(
    ("harm", "kind", "told"),
    [
        (_missing, SHAPE, "has slices 3 mm apart, but 6 mm between IM6.dcm and IM4.dcm"),
        (_twice, ORIENTATION, "two slices in one place"),
        (_other_series, SHAPE, "is of another series than IM0.dcm"),
        (_other_direction, ORIENTATION, "lies in another direction than IM0.dcm"),
        (_skewed, ORIENTATION, "not perpendicular"),
        (_other_pixels, SHAPE, "has pixels of"),
        (_nowhere, UNREADABLE, "has numbers in ImagePositionPatient that are not finite"),
        (_no_place, ORIENTATION, "does not say where its slice lies"),
        (_other_size, SHAPE, r"has \(4, 7\) pixels, but IM0.dcm \(5, 7\)"),
        (_tilted, ORIENTATION, "shifted by up to 11 mm against each other: a tilted gantry"),
    ],
)
def test_what_makes_no_volume_is_refused_by_the_headers(
    harm: Callable[[Path], None], kind: str, told: str, series: Path
) -> None:
    harm(series)
    with pytest.raises(Defect, match=told) as caught:
        read_series(series, root=series)
    assert caught.value.kind == kind
    assert caught.value.path is not None


def test_a_folder_without_slices_is_told_apart(series: Path, tmp_path: Path) -> None:
    def kind(folder: Path) -> str:
        with pytest.raises(Defect) as caught:
            read_series(folder, root=tmp_path / "ct")
        return caught.value.kind

    (tmp_path / "empty").mkdir()
    assert kind(tmp_path / "none") == MISSING
    assert kind(tmp_path / "empty") == EMPTY
    assert kind(series / "IM0.dcm") == SHAPE
    outside = write_series(tmp_path / "elsewhere", VOLUME)
    (series / "IM0.dcm").unlink()
    (series / "IM0.dcm").symlink_to(outside / "IM0.dcm")
    assert kind(series) == OUTSIDE
