"""What budgets cost and prevent, before any training: the library's own figures in three formats, or one clear line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hbdp_fed.dpsgd import noise_to_resolution
from hbdp_fed.errors import SettingError
from hbdp_fed.privacy import calibrate
from hbdp_fed.privacy.guarantee import protection
from hbdp_fed.privacy.image_error import LinearProbe
from simulations import budget, cli
from simulations.budget_table import (
    COLUMNS,
    BudgetRow,
    budget_row,
    how_to_read,
    interval,
    probability,
    show_rows,
    significant,
)
from simulations.schema import BudgetConfig

SMALL = ["sample_rate=0.02", "steps=50", "records=300", "pixels=100"]
CONFIG = BudgetConfig(sample_rate=0.02, steps=50, records=300, pixels=100)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert budget.main([*SMALL, *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("accountant", ["rdp", "tight"])
@pytest.mark.parametrize("eps", [8.0, 1e6])
def test_a_row_has_the_librarys_own_figures(eps: float, accountant: str) -> None:
    config = dataclasses.replace(CONFIG, accountant=accountant, largest_weight=2.0, learning_rate=0.3)
    row = budget_row(config, eps)
    mechanism = {"sample_rate": 0.02, "steps": 50}
    sigma = calibrate(eps=eps, delta=1e-5, **mechanism, accountant=accountant)  # type: ignore[arg-type]
    figures = protection(noise_multiplier=sigma, delta=1e-5, prior=0.01, **mechanism)  # type: ignore[arg-type]
    assert {name: getattr(row, name) for name in vars(figures)} == vars(figures)
    probe = LinearProbe(noise_multiplier=sigma, sample_rate=0.02, steps=50, pixels=100, norm=5.0)
    assert row.best_psnr == probe.expected_best_psnr(300)
    ratio = noise_to_resolution(noise_std=0.3 * sigma / 6, magnitude=2.0, dtype=torch.float32)
    assert row.noise_to_float32 == pytest.approx(ratio, rel=1e-12)
    kept = row.eps_rdp if accountant == "rdp" else row.eps_tight
    assert kept is not None
    assert 0.999 * eps <= kept <= eps


def test_without_privacy_there_is_no_noise_and_the_risk_is_that_of_taking_part() -> None:
    row = budget_row(CONFIG, math.inf)
    assert row.sigma == row.noise_to_float32 == 0
    assert row.eps_rdp == row.eps_lower == row.eps_tight == row.best_psnr == math.inf
    assert row.worst_case == row.relaxed == pytest.approx(1 - 0.98**50 * 0.99)


def test_csv_json_and_table_agree(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "budgets=[8,1e6,inf]"
    document = strict(shown(capsys, asked, "format=json"))
    assert document.keys() == {"settings", "rows"}
    assert document["settings"]["budgets"] == [8.0, 1e6, "inf"]
    assert document["settings"]["records"] == 300
    lines = list(csv.DictReader(io.StringIO(shown(capsys, asked, "format=csv"))))
    assert [line["eps"] for line in lines] == ["8.0", "1000000.0", "inf"]
    names = [field.name for field in dataclasses.fields(BudgetRow)]
    for line, row in zip(lines, document["rows"], strict=True):
        assert list(line) == list(row) == names
        assert line.pop("not_reachable") == ""
        assert row.pop("not_reachable") is None
        assert {name: float(value) for name, value in line.items()} == {name: float(row[name]) for name in row}
    table = shown(capsys, asked)
    for part in ("q=0.02", "T=50", "records=300", "delta=1e-05", "accountant=rdp", "prior=0.01", "pixels=100"):
        assert part in table
    for row in document["rows"]:
        cells = [column.cell(BudgetRow(**{name: float(value) for name, value in row.items()})) for column in COLUMNS]
        (line,) = [line for line in table.splitlines() if line.startswith(f"│ {cells[0]:>5} │")]
        assert [cell.strip() for cell in line.strip("│").split("│")] == cells


@pytest.mark.parametrize("arguments", [["--help"], [*SMALL, "budgets=[8]"]])
def test_the_console_script_is_the_same_program(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.main(arguments) == 0
    by_module = capsys.readouterr()
    assert cli.main(["budget", *arguments]) == 0
    assert capsys.readouterr() == by_module
    assert by_module.out


def test_a_budget_that_no_noise_keeps_says_why_and_the_others_are_computed(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = strict(shown(capsys, "budgets=[1e-3,8]", "format=json"))["rows"]
    assert "never falls below" in first.pop("not_reachable")
    assert first.pop("eps") == 1e-3
    assert set(first.values()) == {None}
    assert second["not_reachable"] is None
    assert second["sigma"] > 0
    line = next(line for line in shown(capsys, "budgets=[1e-3,8]").splitlines() if "0.001 │" in line)
    assert "not reachable: floor 0.1" in line
    table = shown(capsys, "budgets=[1e-3]", "accountant=tight", "steps=1", "sample_rate=1e-4", "delta=1e-3")
    assert "Choose a smaller delta" in " ".join(table.split())


@pytest.mark.parametrize(
    ("name", "extra", "start"),
    [
        ("t.csv", [], "eps,sigma,"),
        ("t.JSON", [], "{"),
        ("t.txt", [], "Budgets: q=0.02"),
        ("t.csv", ["format=json"], "{"),
        ("t.csv", ["format=table"], "Budgets: q=0.02"),
    ],
)
def test_the_suffix_chooses_the_format_of_the_file(
    name: str, extra: list[str], start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    said = shown(capsys, "budgets=[8]", f"output={path}", *extra)
    assert path.read_text().lstrip().startswith(start)
    assert str(path) in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sample_rate", 0.0, "must lie in (0, 1]"),
        ("sample_rate", 1.1, "must lie in (0, 1]"),
        ("sample_rate", math.nan, "must lie in (0, 1]"),
        ("sample_rate", 1e-9, "1e-09 of 300 records is an expected batch below"),
        ("steps", 0, "must be from 1"),
        ("records", 0, "must be from 1"),
        ("delta", 0.0, "must lie strictly between"),
        ("delta", 0.01, "0.01 must be below 1/records = 0.00333333"),
        ("budgets", [], "must hold at least one"),
        ("budgets", [1.0, 0.0], "must be positive"),
        ("budgets", [math.nan], "must be positive"),
        ("budgets", [1e21], "must be positive numbers up to 1e+20, or inf"),
        ("budgets", [[1]], "must be positive"),
        ("accountant", "prv", "'prv' is not known; choose one of: rdp, tight"),
        ("prior", 1.0, "must lie strictly between"),
        ("pixels", 1, "must be from 2"),
        ("image_rms", 0.0, "must lie in (0, 1]"),
        ("learning_rate", 0.0, "must be positive"),
        ("max_grad_norm", math.inf, "must be positive and at most"),
        ("largest_weight", -1.0, "must be positive"),
        ("format", "xml", "'xml' is not known; choose one of: csv, json, table"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        budget.check(dataclasses.replace(CONFIG, **{"budgets": [8.0], key: value}))
    assert str(error.value).startswith(f"{key}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("delta=0.01", "delta: 0.01 must be below 1/records = 0.00333333"),
        ("budgets=[nan]", "budgets: must be positive"),
        ("budgets=[[1]]", "budgets: must be positive"),
        ("output=no/such/folder/t.csv", "output: the folder "),
        ("output=.", "output: "),
        ("sampel_rate=1", "sampel_rate: there is no such setting; did you mean 'sample_rate'?"),
    ],
)
def test_what_cannot_be_computed_is_one_line_before_anything_is(
    argument: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "budget_row", lambda *_: pytest.fail("computed"))
    assert budget.main([*SMALL, argument]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError, 1)])
def test_what_ends_the_computation_decides_the_exit_code(
    error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: object) -> BudgetRow:
        raise error

    monkeypatch.setattr(budget, "budget_row", ends)
    assert budget.main(SMALL) == code
    assert capsys.readouterr().out == ""


def test_help_explains_every_setting_with_its_default_and_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    assert list(budget.SETTINGS) == [field.name for field in dataclasses.fields(BudgetConfig)]
    for name in budget.SETTINGS:
        assert f"\n  {name}=" in text
    assert "delta=1e-05" in text
    assert "budgets=[1,8,32,1000,1e+06,1e+09,1e+12,1e+15]" in text
    for column in COLUMNS:
        assert f"\n  {column.name}\n" in text
    assert "python -m simulations.budget sample_rate=" in text


def test_the_table_fits_a_narrow_console_without_breaking_a_number() -> None:
    rows = [BudgetRow(eps, *[1.23456e-15] * 9) for eps in (1.0, 1e15)]
    for width, headers in ((120, 1), (80, 2)):
        console = Console(file=io.StringIO(), width=width)
        show_rows(console, CONFIG, rows)
        assert isinstance(console.file, io.StringIO)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert sum("1e+15 │" in line for line in lines) == headers
        assert all("1.235e-15" in line for line in lines if "1e+15 │" in line)


def test_the_reading_names_the_rows_where_noise_no_longer_counts() -> None:
    ceiling = 1 - 0.98**50 * 0.99
    rows = [BudgetRow(8.0, worst_case=0.2), BudgetRow(1e6, worst_case=ceiling), BudgetRow(1e-3, not_reachable="why")]
    assert f"= {ceiling:.4g}, and within 0.1% it is that at eps=1e+06 too" in how_to_read(CONFIG, rows)
    assert "no row comes within 0.1% of it" in how_to_read(CONFIG, rows[:1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "0.01"), (0.98764, "0.9876"),
     (0.9999, "0.9999"), (0.99987, "0.99987"), (0.99999963, "0.99999963"), (1.0, "1"), (1e-9, "1e-09"),
     (1 - 2e-12, "1 - 2e-12"), (math.nextafter(1, 0), "1 - 1e-16"), (None, "-")],
)  # fmt: skip
def test_a_risk_below_1_is_never_written_as_1(value: float | None, text: str) -> None:
    assert probability(value) == text


def test_numbers_keep_four_digits() -> None:
    assert [significant(value) for value in (1e12, 0.98764, math.inf, None)] == ["1e+12", "0.9876", "inf", "-"]


def test_an_interval_is_rounded_outwards() -> None:
    assert interval(7043.2, 7043.4) == "7043 to 7044"
    assert interval(0.0, 9.99951) == "0 to 10"
    assert interval(6.5453309e10, 6.5453309e10) == "6.545e+10 to 6.546e+10"
    assert interval(8.0, 8.0) == "8"
    assert interval(math.inf, math.inf) == "inf"
    assert interval(None, None) == "-"
