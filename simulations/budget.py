"""What each budget costs and what it prevents, before any training: ``python -m simulations.budget steps=2000``."""

from __future__ import annotations

import io
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import track

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.privacy import ACCOUNTANTS
from simulations.budget_table import COLUMNS, LARGEST_FLOAT32, BudgetRow, as_csv, as_json, budget_row, show_rows
from simulations.compose import compose_run, typed_as
from simulations.limits import LARGEST_BUDGET
from simulations.output import check_format, chosen_format, output_file
from simulations.program import OK, error_console, exit_code, make_console
from simulations.schema import BudgetConfig

TABLE, CSV, JSON = "table", "csv", "json"
FORMATS = (TABLE, CSV, JSON)
BY_SUFFIX = {".csv": CSV, ".json": JSON}

MOST_STEPS = 10_000_000
MOST = 1_000_000_000
LEAST_BATCH = 0.01

_FILE_WIDTH = 120

HELP = """usage: python -m simulations.budget [key=value ...]

  python -m simulations.budget sample_rate=0.05 steps=2000 records=1400
  python -m simulations.budget budgets=[8,1e6,inf] pixels=50176 output=budgets.csv

Nothing is trained and no data is read: the figures follow from the settings alone.

exit codes: 0 done, 1 the computation failed, 2 a setting cannot be used, 130 interrupted
"""

SETTINGS: Mapping[str, str] = {
    "sample_rate": "The chance of a patient's record to be drawn into one training step (q): expected batch / records.",
    "steps": "How many training steps there are in all (T), over all rounds and probes.",
    "records": "How many records the hospital has.",
    "delta": "The chance that the promise of epsilon is allowed to fail; it must be below 1/records.",
    "budgets": "The budgets to compare, a row each: a list of numbers, in which inf is training without protection.",
    "accountant": "Which accountant must find the budget kept: rdp (the convention of publications) or tight.",
    "prior": "How likely a guess at the patient's record is right without the training: 0.01 is one of 100 candidates.",
    "pixels": "How many numbers an image has, all channels counted: 784 is 28x28 in grey.",
    "image_rms": "How bright images are: the root mean square of their pixel values in [0, 1].",
    "learning_rate": "The learning rate, for the column noise/float32 alone.",
    "max_grad_norm": "The clipping norm, for the column noise/float32 alone.",
    "largest_weight": "The largest weight of the model, for the column noise/float32 alone.",
    "format": "table, csv or json; null is what the suffix of output says (.csv or .json), and else table.",
    "output": "A file to write instead of the screen; null is the screen.",
}
"""What each setting means."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        return _help([argument for argument in given if not argument.startswith("-")])
    return _budget(_composed(given), error_console())


def _composed(given: Sequence[str]) -> BudgetConfig:
    return typed_as(BudgetConfig, compose_run(given, config_name="budget"))


def _help(given: Sequence[str]) -> int:
    config = _composed(given)
    lines = [HELP, "Settings with their defaults:\n"]
    for name, text in SETTINGS.items():
        lines += [f"  {name}={_written(getattr(config, name))}", _indented(text)]
    lines.append("\nColumns of the table, with what they mean for a patient:\n")
    for column in COLUMNS:
        lines += [f"  {column.name}", _indented(column.meaning)]
    lines.append("\nCSV and JSON have the same figures with all their digits.")
    Console(highlight=False, markup=False, soft_wrap=True).print("\n".join(lines))
    return OK


def _written(value: object) -> str:
    """A value as one types it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


def _indented(text: str) -> str:
    return textwrap.fill(text, width=110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _budget(config: BudgetConfig, errors: Console) -> int:
    check(config)
    target = output_file(config.output)
    form = chosen_format(config.format, target, by_suffix=BY_SUFFIX, otherwise=TABLE)
    # On the error stream: the standard output holds the table and nothing else.
    budgets = track(config.budgets, "computing", console=errors, transient=True, disable=not errors.is_terminal)
    rows = [budget_row(config, eps) for eps in budgets]
    if target is not None:
        target.write_text(_text(form, config, rows), encoding="utf-8")
        make_console().print(f"{form}: {target}", markup=False, soft_wrap=True)
    elif form == TABLE:
        show_rows(make_console(), config, rows)
    else:
        sys.stdout.write(_text(form, config, rows))
    return OK


def _text(form: str, config: BudgetConfig, rows: Sequence[BudgetRow]) -> str:
    if form == CSV:
        return as_csv(rows)
    if form == JSON:
        return as_json(config, rows)
    page = io.StringIO()
    show_rows(Console(file=page, width=_FILE_WIDTH, highlight=False), config, rows)
    return page.getvalue()


def check(config: BudgetConfig) -> None:
    """Refuse what cannot be computed, before anything is.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    _in_unit_interval("sample_rate", config.sample_rate)
    _whole("steps", config.steps, 1, MOST_STEPS)
    _whole("records", config.records, 1, MOST)
    if config.sample_rate * config.records < LEAST_BATCH:
        raise SettingError(
            "sample_rate",
            f"{config.sample_rate:g} of {config.records} records is an expected batch below {LEAST_BATCH:g} records",
        )
    _strictly_between_0_and_1("delta", config.delta)
    if config.delta >= 1 / config.records:
        raise SettingError("delta", f"{config.delta:g} must be below 1/records = {1 / config.records:g}")
    _check_budgets(config.budgets)
    if config.accountant not in ACCOUNTANTS:
        raise unknown_choice("accountant", config.accountant, ACCOUNTANTS)
    _strictly_between_0_and_1("prior", config.prior)
    _whole("pixels", config.pixels, 2, MOST)
    _in_unit_interval("image_rms", config.image_rms)
    for key in ("learning_rate", "max_grad_norm", "largest_weight"):
        value = getattr(config, key)
        if not 0 < value <= LARGEST_FLOAT32:
            raise SettingError(key, f"must be positive and at most {LARGEST_FLOAT32:.3g}, got {value:g}")
    check_format(config.format, FORMATS)


def _check_budgets(budgets: Sequence[object]) -> None:
    if not budgets:
        raise SettingError("budgets", "must hold at least one number, for example [1,1e12]")
    for eps in budgets:
        if not isinstance(eps, float) or not (0 < eps <= LARGEST_BUDGET or eps == math.inf):
            raise SettingError("budgets", f"must be positive numbers up to {LARGEST_BUDGET:g}, or inf, got {eps}")


def _whole(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise SettingError(key, f"must be from {least} to {most}, got {value}")


def _strictly_between_0_and_1(key: str, value: float) -> None:
    if not 0 < value < 1:
        raise SettingError(key, f"must lie strictly between 0 and 1, got {value:g}")


def _in_unit_interval(key: str, value: float) -> None:
    if not 0 < value <= 1:
        raise SettingError(key, f"must lie in (0, 1], got {value:g}")


if __name__ == "__main__":
    sys.exit(main())
