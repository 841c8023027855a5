"""What a DICOM data set says of an image: the attributes that are kept, and their values (DICOM PS3.5, 6.2; PS3.6)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hbdp_fed.data.defects import UNREADABLE, Defect

TAGS: Mapping[str, int] = MappingProxyType(
    {
        "Modality": 0x00080060,
        "SliceThickness": 0x00180050,
        "SpacingBetweenSlices": 0x00180088,
        "SeriesInstanceUID": 0x0020000E,
        "ImagePositionPatient": 0x00200032,
        "ImageOrientationPatient": 0x00200037,
        "SamplesPerPixel": 0x00280002,
        "PhotometricInterpretation": 0x00280004,
        "PlanarConfiguration": 0x00280006,
        "NumberOfFrames": 0x00280008,
        "Rows": 0x00280010,
        "Columns": 0x00280011,
        "PixelSpacing": 0x00280030,
        "BitsAllocated": 0x00280100,
        "BitsStored": 0x00280101,
        "HighBit": 0x00280102,
        "PixelRepresentation": 0x00280103,
        "WindowCenter": 0x00281050,
        "WindowWidth": 0x00281051,
        "RescaleIntercept": 0x00281052,
        "RescaleSlope": 0x00281053,
        "VOILUTFunction": 0x00281056,
        "RedPaletteColorLookupTableDescriptor": 0x00281101,
        "GreenPaletteColorLookupTableDescriptor": 0x00281102,
        "BluePaletteColorLookupTableDescriptor": 0x00281103,
        "RedPaletteColorLookupTableData": 0x00281201,
        "GreenPaletteColorLookupTableData": 0x00281202,
        "BluePaletteColorLookupTableData": 0x00281203,
        "ModalityLUTSequence": 0x00283000,
        "LUTDescriptor": 0x00283002,
        "LUTData": 0x00283006,
        "VOILUTSequence": 0x00283010,
    }
)
"""By their keywords. The rest of a header is a person's, and nobody's business here."""


@dataclass(frozen=True)
class DataSet:
    """Attributes of a data set or of a sequence's item.

    Attributes:
        order: ``<`` or ``>``, in which order the bytes of a number stand.
        values: The bytes of each attribute, by its tag.
        sequences: The items of each sequence.
    """

    order: str
    values: Mapping[int, bytes] = field(default_factory=dict)
    sequences: Mapping[int, tuple[DataSet, ...]] = field(default_factory=dict)

    def has(self, keyword: str) -> bool:
        """Whether there is such an attribute with a value, or such a sequence with an item."""
        tag = TAGS[keyword]
        return bool(self.values.get(tag, b"").strip(b" \0")) or bool(self.sequences.get(tag))

    def words(self, keyword: str) -> list[str]:
        """The values of a text; none, if there is none."""
        text = self.values.get(TAGS[keyword], b"").decode("latin-1").strip(" \0")
        return [word.strip(" \0") for word in text.split("\\")] if text else []

    def text(self, keyword: str) -> str:
        """The first value of a text, or an empty one."""
        return next(iter(self.words(keyword)), "")

    def decimals(self, keyword: str) -> list[float]:
        """The values of a decimal or integer string.

        Raises:
            Defect: if one is no number.
        """
        try:
            return [float(word) for word in self.words(keyword) if word]
        except ValueError as error:
            raise Defect(UNREADABLE, f"has a {keyword} that is no number") from error

    def integer(self, keyword: str, default: int | None = None) -> int:
        """An unsigned short.

        Raises:
            Defect: if there is none, and no default.
        """
        value = self.values.get(TAGS[keyword], b"")
        if len(value) >= 2:
            return int(struct.unpack(f"{self.order}H", value[:2])[0])
        if default is None:
            raise Defect(UNREADABLE, f"has no {keyword}")
        return default

    def raw(self, keyword: str) -> bytes:
        """The value's bytes.

        Raises:
            Defect: if there is none.
        """
        if not self.has(keyword):
            raise Defect(UNREADABLE, f"has no {keyword}")
        return self.values[TAGS[keyword]]

    def items(self, keyword: str) -> tuple[DataSet, ...]:
        """A sequence's items."""
        return self.sequences.get(TAGS[keyword], ())
