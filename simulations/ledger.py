"""Is a run's privacy ledger what the run wrote? ``python -m simulations.ledger verify run=runs/...``."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.errors import SettingError, UserError
from hbdp_fed.privacy.ledger import Account, Head, LedgerError, Verified, verify
from hbdp_fed.strict_json import loads
from simulations.program import OK, exit_code, make_console
from simulations.typed_path import typed_path

LEDGER_FILE, SUMMARY_FILE = "ledger.jsonl", "summary.json"

_ROWS = 20

HELP = """usage: python -m simulations.ledger verify RUN_OR_FILE

  python -m simulations.ledger verify run=runs/20260101-120000_run
  python -m simulations.ledger verify runs/20260101-120000_run
  python -m simulations.ledger verify runs/20260101-120000_run/ledger.jsonl

Reads every line of the ledger, checks that none was changed, dropped, inserted or moved and that each hospital's steps
add up and stay within its plan. Lines that are missing at the end can only be told by the run's summary.json, which
keeps how the ledger ended.

exit codes: 0 intact, 1 broken, 2 there is no such ledger, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given), failures=(LedgerError,))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        Console(highlight=False, markup=False, soft_wrap=True).print(HELP)
        return OK
    return _verify(_ledger_of(_asked_for(given)), make_console())


def _asked_for(given: Sequence[str]) -> Path:
    """The run's folder or the file that the command line names."""
    if given[:1] != ["verify"]:
        problem = f"'{given[0]}' is not a command" if given else "there is no command"
        raise UserError(f"{problem}; choose: verify")
    if len(given) != 2:
        raise SettingError("run", f"name one run folder or ledger file: verify runs/..., got {len(given) - 1}")
    name = given[1].removeprefix("run=")
    path = typed_path("run", name)
    key, equals, _ = name.partition("=")
    if equals and not path.exists():
        raise SettingError(key, "there is no such setting; did you mean 'run'?")
    if not path.exists():
        raise SettingError("run", f"'{name}' does not exist; name a run folder or a ledger file")
    return path.resolve()


def _ledger_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / LEDGER_FILE).is_file():
        raise SettingError("run", f"{path} holds no ledger: there is no {LEDGER_FILE}")
    return path / LEDGER_FILE


def _verify(path: Path, console: Console) -> int:
    expected, unknown = _expected_head(path)
    try:
        found = verify(path, expected_head=expected)
    except OSError as error:
        raise SettingError("run", f"{path} cannot be read ({error.strerror})") from error
    if found.accounts:
        console.print(_table(found))
    end = f"end checked against {SUMMARY_FILE}" if found.end_checked else f"end NOT checked: {unknown}"
    console.print(
        f"ledger intact: {found.head.count} lines, hash {found.head.hash}, {end}", markup=False, soft_wrap=True
    )
    return OK


def _expected_head(path: Path) -> tuple[Head | None, str]:
    """How the ledger of a run folder ended, by the run's summary; None with the reason why that is not known."""
    summary = path.with_name(SUMMARY_FILE)
    missing = "lines may be missing there"
    if path.name != LEDGER_FILE or not summary.is_file():
        return None, f"there is no {SUMMARY_FILE} beside it, so {missing}"
    try:
        kept = loads(summary.read_bytes())
        if "ledger" not in kept:
            return None, f"{SUMMARY_FILE} does not say how it ended, so {missing}"
        return _head(kept["ledger"]), ""
    except OSError as error:
        raise SettingError("run", f"{summary} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SettingError("run", f"{summary} is no run's summary: its ledger must have lines and hash") from error


def _head(kept: Mapping[str, Any]) -> Head:
    lines, last = kept["lines"], kept["hash"]
    if type(lines) is not int or lines < 0 or not isinstance(last, str):
        raise ValueError("lines must be a whole number and hash text")
    return Head(lines, last)


def _table(found: Verified) -> Table:
    """A line a hospital."""
    table = Table(title="Ledger", title_justify="left", title_style="bold")
    for name in ("hospital", "rounds charged", "lost", "steps spent", "epsilon spent", "refusals"):
        table.add_column(name, justify="left" if name == "hospital" else "right")
    for name, account in list(found.accounts.items())[:_ROWS]:
        table.add_row(
            escape(name),
            str(account.rounds),
            str(account.lost),
            _steps(account),
            _epsilon(account),
            str(account.refusals),
        )
    if len(found.accounts) > _ROWS:
        table.add_row(f"... {len(found.accounts) - _ROWS} more", *[""] * 5)
    return table


def _steps(account: Account) -> str:
    return f"{account.steps_spent} of {account.plan.steps_planned}" if account.plan else "no plan"


def _epsilon(account: Account) -> str:
    if account.plan is None:
        return "no plan"
    return f"{_number(account.eps_spent)} of {_number(account.plan.eps_planned)} per {account.plan.per}"


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
