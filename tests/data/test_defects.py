"""What is wrong with many records comes in one message, or in a line each of what was left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.defects import EMPTY, MISSING, Defect, Found, settle
from hbdp_fed.errors import DataFileError

MANIFEST = Path("folder/manifest.csv")


def found(count: int) -> list[Found]:
    return [Found(Path(f"folder/{number}.png"), EMPTY if number % 2 else MISSING, "why") for number in range(count)]


def test_all_are_in_one_message_with_their_kinds() -> None:
    with pytest.raises(DataFileError) as caught:
        settle(found(3), manifest=MANIFEST, total=10, bad=BadRecords("stop"))
    assert str(caught.value) == (
        "folder/manifest.csv: 3 of 10 records cannot be used (2 missing file, 1 zero bytes); repair them, or leave "
        "them out with data.on_bad_record=skip: folder/0.png: missing file: why; folder/1.png: zero bytes: why; "
        "folder/2.png: missing file: why"
    )


def test_very_many_are_counted() -> None:
    with pytest.raises(DataFileError) as caught:
        settle(found(1000), manifest=MANIFEST, total=1000, bad=BadRecords("stop"))
    told = str(caught.value)
    assert told.startswith(
        "folder/manifest.csv: 1000 of 1000 records cannot be used (500 missing file, 500 zero bytes)"
    )
    assert told.endswith("folder/19.png: zero bytes: why; and 980 more")


def test_skipped_ones_are_listed_one_by_one() -> None:
    bad = BadRecords("skip")
    settle(found(2), manifest=MANIFEST, total=2, bad=bad)
    assert bad.skipped == ["folder/0.png: missing file: why", "folder/1.png: zero bytes: why"]


def test_nothing_wrong_is_nothing_said() -> None:
    settle([], manifest=MANIFEST, total=2, bad=BadRecords("stop"))


def test_a_defect_keeps_the_file_that_it_knows() -> None:
    assert Defect(EMPTY, "why").of(Path("a")).path == Path("a")
    assert Defect(EMPTY, "why", Path("b")).of(Path("a")).path == Path("b")
