"""Which words of a command line name files."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.positional import parted


def test_files_and_settings_may_stand_in_any_order() -> None:
    assert parted(["runs/a", "format=md", "runs/b", "data.size=28"]) == (
        ["runs/a", "runs/b"],
        ["format=md", "data.size=28"],
    )


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eps=1").mkdir()
    assert parted(["eps=1", "runs/eps=8", "eps=8"]) == (["eps=1", "runs/eps=8"], ["eps=8"])
