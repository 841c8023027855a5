"""A run that cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.run import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a run that cannot start says; it writes nothing."""
    capsys.readouterr()
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    return told
