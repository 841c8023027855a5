"""The figures of LOKI: what has to be reached, by the command that they are quoted from."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.attacks import loki as measured
from simulations.program import BAD_INPUT


@pytest.mark.slow
@pytest.mark.parametrize("data", ["phantom", "pneumoniamnist"])
@pytest.mark.parametrize("secure_sum", [False, True], ids=["plain", "secure"])
def test_acceptance_half_of_eighty_records_come_back_out_of_the_sum_of_ten_hospitals(
    data: str, secure_sum: bool, capsys: pytest.CaptureFixture[str], hbdp_data: Path
) -> None:
    """By the command that the figure is quoted from."""
    given = ["--data", data, "--eps", "inf", "--probes", "1", *(["--secure"] if secure_sum else [])]
    assert measured.main(given) == 0
    header, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    table = {(row[2], int(row[3])): dict(zip(header, row, strict=True)) for row in lines}
    loki = table["loki", 1280]
    assert int(loki["records"]) >= 60
    assert float(loki["rebuilt"]) >= 0.5
    assert float(loki["rebuilt"]) > float(table["imprint", 128]["rebuilt"]) + 0.1
    assert float(loki["others"]) <= 0.05


def test_a_run_that_is_refused_ends_the_table_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured.main(["--data", "phantom", "--eps", "0"]) == BAD_INPUT
    shown = capsys.readouterr()
    assert "eps" in shown.err
    assert len(shown.out.splitlines()) == 1
