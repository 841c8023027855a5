"""Real DICOM: a CT of the abdomen, and the files that pydicom is tested with and installs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from imageio.plugins import _dicom
from numpy.typing import NDArray
from PIL import Image

from hbdp_fed.data.defects import NO_DECODER, SHAPE, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.image import physical, shown
from hbdp_fed.data.dicom.pixels import frame_of, stored_pixels
from hbdp_fed.data.own.dicom import series_files
from hbdp_fed.data.own.table import Row

LIVER_HU = 141.0

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"

REFUSED: Mapping[str, tuple[str, Sequence[str]]] = {
    "is no DICOM file": (
        UNREADABLE,
        [
            "README.txt", "crayons.icc", "dicomdirtests/README.txt", "dicomdirtests/TINY_ALPHA/README", "no_meta.dcm",
            "rtplan.dump", "rtstruct.dump", "test1.json", "test_PN.json", "zipMR.gz",
        ],
    ),
    # Plans, reports, curves and indices of a disk.
    "holds no pixels": (
        UNREADABLE,
        [
            "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "UN_sequence.dcm", "dicomdirtests/DICOMDIR",
            "dicomdirtests/DICOMDIR-bigEnd", "dicomdirtests/DICOMDIR-empty.dcm", "dicomdirtests/DICOMDIR-implicit",
            "dicomdirtests/DICOMDIR-nooffset", "dicomdirtests/DICOMDIR-nopatient", "dicomdirtests/DICOMDIR-reordered",
            "dicomdirtests/TINY_ALPHA/DICOMDIR", "empty_charset_LEI.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm",
            "reportsi.dcm", "reportsi_with_empty_number_tags.dcm", "rtplan.dcm", "rtplan_truncated.dcm", "rtstruct.dcm",
            "test-SR.dcm", "waveform_ecg.dcm",
        ],
    ),
    "has no BitsAllocated": (UNREADABLE, ["meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"]),
    "has something in NumberOfFrames that is no number": (UNREADABLE, ["badVR.dcm"]),
    # A part of the file that pydicom takes for the end of the pixels, and a picture that Pillow takes for broken.
    "has pixels that cannot be decoded": (
        UNREADABLE, ["GDCMJ2K_TextGBR.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"]
    ),
    "ends 62 bytes before its pixels do": (TRUNCATED, ["MR_truncated.dcm"]),
    "has 2 frames": (
        SHAPE, ["SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm"]
    ),
    "has 15 frames": (SHAPE, ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"]),
    "has 30 frames": (SHAPE, ["examples_ybr_color.dcm"]),
    "has pixels kept as JPEG Extended": (NO_DECODER, ["JPEG-lossy.dcm", "JPGExtended.dcm"]),
    "has pixels kept as JPEG-LS": (
        NO_DECODER,
        [
            "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "MR_small_jpeg_ls_lossless.dcm",
            "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
        ],
    ),
    "has pixels kept as JPEG Lossless": (NO_DECODER, ["SC_rgb_jpeg_gdcm.dcm"]),
}  # fmt: skip
"""What is said of which files, and what kind of defect it is. All others are read."""

_NO_PIXELS = "dicomdirtests/TINY_ALPHA/PT000000"
"""Slices of a disk whose pixels were left out."""

ALIKE: Sequence[tuple[str, Sequence[str], float]] = (
    # Uncompressed in three transfer syntaxes, as run lengths and as lossless JPEG 2000.
    (
        "MR_small.dcm",
        [
            "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
            "MR_small_jp2klossless.dcm", "MR_small_padded.dcm",
        ],
        0,
    ),
    ("liver_1frame.dcm", ["liver_expb_1frame.dcm"], 0),
    ("rtdose_1frame.dcm", ["rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm"], 0),
    ("SC_rgb_small_odd.dcm", ["SC_rgb_small_odd_big_endian.dcm"], 0),
    # Bars of colours: JPEG of either kind, JPEG 2000 and YBR come close to them.
    (
        "SC_rgb_rle.dcm",
        [
            "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm",
            "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm",
            "SC_rgb_gdcm_KY.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm",
            "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm",
        ],
        0.02,
    ),
)  # fmt: skip
"""A file, others of the same image, and how far their brightness may be apart on the mean."""


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


def test_every_file_is_read_or_refused_for_what_it_is() -> None:
    wanted = {name: (kind, told) for told, (kind, names) in REFUSED.items() for name in names}
    read, surprising = 0, []
    for path in sorted(FOLDER.rglob("*")):
        name = path.relative_to(FOLDER).as_posix()
        if not path.is_file():
            continue
        kind, told = (UNREADABLE, "holds no pixels") if name.startswith(_NO_PIXELS) else wanted.pop(name, ("", ""))
        try:
            bright = _shown(path)
        except Defect as defect:
            if defect.kind != kind or not defect.text.startswith(told) or not told:
                surprising.append(f"{name}: {defect}")
            continue
        read += 1
        if told or not (np.isfinite(bright).all() and 0 <= bright.min() <= bright.max() <= 1):
            surprising.append(f"{name}: is read")
    assert surprising == []
    assert not wanted
    assert read >= 70


def test_the_same_image_is_the_same_in_every_encoding() -> None:
    for first, others, apart in ALIKE:
        wanted = _shown(FOLDER / first)
        for other in others:
            found = _shown(FOLDER / other)
            assert found.shape == wanted.shape, other
            assert np.abs(found - wanted).mean() <= apart, other


def test_pixels_are_those_of_another_reader() -> None:
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"):
        file = read_header(FOLDER / name)
        values = physical(stored_pixels(file, frame_of(file)), file.header)
        path = str(FOLDER / name)
        np.testing.assert_array_equal(values, _dicom.SimpleDicomReader(path).get_numpy_array(), err_msg=name)


def test_a_real_ct_slice_is_the_numbers_at_the_end_of_its_file() -> None:
    """Little endian, and before what pads the file."""
    file = read_header(FOLDER / "CT_small.dcm")
    content = (FOLDER / "CT_small.dcm").read_bytes()
    begins = b"\xe0\x7f\x10\x00OW\x00\x00"
    at = content.index(begins) + len(begins) + 4
    raw = np.frombuffer(content, "<i2", 128 * 128, at).reshape(128, 128)
    np.testing.assert_array_equal(physical(stored_pixels(file, frame_of(file)), file.header), raw - 1024.0)


def _shown(path: Path) -> NDArray[np.float64]:
    file = read_header(path)
    return shown(file, window=None)
