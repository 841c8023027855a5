"""A record that cannot be used ends the run by default, and is left out, counted and said so on request."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.errors import DataFileError, SettingError

PATH = Path("folder") / "image.png"


def test_by_default_the_error_names_the_file_and_the_way_out() -> None:
    bad = BadRecords("stop")
    with pytest.raises(DataFileError, match=r"image\.png: is empty; .*data\.on_bad_record=skip") as caught:
        bad.refuse(PATH, "is empty")
    assert caught.value.path == PATH
    assert bad.skipped == []


def test_skipped_records_are_counted_in_order_and_said(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadRecords("skip")
    with caplog.at_level(logging.INFO):
        bad.refuse(PATH, "is empty")
        bad.refuse(Path("other"), "is broken")
    assert bad.skipped == [f"{PATH}: is empty", "other: is broken"]
    assert [record.getMessage() for record in caplog.records] == [
        f"skipped {PATH}: is empty",
        "skipped other: is broken",
    ]


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"^data\.on_bad_record: 'ignore' is not known.*skip, stop"):
        BadRecords("ignore")
