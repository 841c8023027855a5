"""The console script and the module are the same program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hbdp_fed import __version__
from simulations.cli import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    assert "'fly' is not a command; choose one of: run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "slip", "meant"),
    [
        (["simulations.cli", "run"], "clinets", "clients"),
        pytest.param(["simulations.budget"], "sampel_rate", "sample_rate", marks=pytest.mark.slow),
    ],
)
def test_the_exit_code_reaches_the_shell(program: list[str], slip: str, meant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *program, f"{slip}=5"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {slip}: there is no such setting; did you mean '{meant}'?\n"
    assert done.stdout == ""
