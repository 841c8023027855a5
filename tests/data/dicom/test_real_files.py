"""Real DICOM: a CT of the abdomen, and the files that pydicom tests itself with, where it is installed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageio.plugins import _dicom
from PIL import Image

from hbdp_fed.data.dicom.pixels import frame_of, stored_pixels
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.image import physical, shown
from hbdp_fed.data.own.dicom import series_files
from hbdp_fed.data.own.table import Row

LIVER_HU = 141.0


def test_a_real_ct_is_in_hounsfield_units_with_its_outline_the_right_way_round(hbdp_data: Path) -> None:
    folder = hbdp_data / "chaos_ct"
    row = Row(2, folder / "DICOM_anon", "a", None, folder / "Ground", None, None, {})
    files = series_files(folder)
    stored, mask = files.image(row), files.mask(row)
    assert stored.voxels.shape == mask.voxels.shape == (512, 512, 78)
    np.testing.assert_allclose(np.abs(np.diag(stored.affine)), [0.7265625, 0.7265625, 2.0, 1.0])
    inside = mask.voxels > 0
    assert abs(float(stored.voxels[inside].mean()) - LIVER_HU) < 2
    # The wrong way round there is air, fat and bone in it.
    assert float(stored.voxels[inside[:, :, ::-1]].mean()) < 100
    # Another reader, slice by slice, and the files as they lie there: names run from the top down.
    names = sorted((folder / "DICOM_anon").iterdir())
    outlines = sorted((folder / "Ground").iterdir())
    for number in (0, 30, 77):
        pixels = _dicom.SimpleDicomReader(str(names[number])).get_numpy_array()
        np.testing.assert_array_equal(stored.voxels[:, :, 77 - number], pixels.T)
        with Image.open(outlines[number]) as outline:
            np.testing.assert_array_equal(inside[:, :, 77 - number], np.asarray(outline).T)


def _files_of_pydicom() -> list[Path]:
    try:
        import pydicom
    except ImportError:
        return []
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.skipif(not _files_of_pydicom(), reason="pydicom, with its test files, is not installed")
def test_pixels_are_those_of_pydicom_wherever_it_reads_a_single_image() -> None:
    from hbdp_fed.data.defects import Defect

    compared = refused = 0
    for path in _files_of_pydicom():
        theirs = _read_by_pydicom(path)
        try:
            file = read_header(path)
            frame = frame_of(file)
            ours = stored_pixels(file, frame)
        except Defect:
            # Several frames and single bits are no images here.
            is_image = theirs is not None and theirs[1].get("NumberOfFrames", 1) in (None, 1)
            assert not is_image or theirs[1].BitsAllocated == 1, path
            refused += 1
            continue
        assert theirs is not None, path
        np.testing.assert_array_equal(ours, theirs[0], err_msg=str(path))
        _compare_brightness(path, theirs, physical(ours, file.header, frame) if ours.ndim == 2 else None)
        compared += 1
    assert compared >= 60
    assert refused >= 60


def _read_by_pydicom(path: Path) -> tuple[np.ndarray, Any] | None:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            return dataset.pixel_array, dataset
    except Exception:  # noqa: BLE001 - whatever it says of a file that it does not read
        return None


def _compare_brightness(path: Path, theirs: tuple[np.ndarray, Any], values: np.ndarray | None) -> None:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing

    pixels, dataset = theirs
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        found = shown(read_header(path), window=None)
        np.testing.assert_allclose(found, apply_color_lut(pixels, dataset) / 65535, atol=1e-12)
        return
    if values is None:
        return
    expected = apply_modality_lut(pixels, dataset)
    np.testing.assert_allclose(values, expected, err_msg=str(path))
    if dataset.get("WindowWidth") is None:
        return
    # pydicom scales to the numbers that could be stored, rescaled.
    bits = dataset.BitsStored
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if dataset.PixelRepresentation else [0, 2**bits - 1])
    low, high = ends * dataset.get("RescaleSlope", 1) + dataset.get("RescaleIntercept", 0)
    window = (apply_windowing(expected, dataset) - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        window = 1 - window
    np.testing.assert_allclose(shown(read_header(path), window=None), window, atol=1e-9, err_msg=str(path))
