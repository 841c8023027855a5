"""The runs that there are: ``python -m simulations.runs [FOLDER]``."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from hbdp_fed.errors import SettingError
from hbdp_fed.strict_json import dumps
from simulations.program import OK, exit_code
from simulations.run_list import BROKEN, FINISHED, UNFINISHED, Listed, runs_in
from simulations.typed_path import typed_path

DEFAULT_FOLDER = "runs"

_NAMED = 5
_PAGE_WIDTH, _WIDEST = 160, 1000

HELP = """Lists the runs in a folder and below, newest last: those that finished with their utility on the test split
and the attack that won most, the others with how far they came and how to go on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="hbdp-fed runs", description=HELP)
    parser.add_argument("folder", nargs="?", default=DEFAULT_FOLDER, help=f"where to look; default: {DEFAULT_FOLDER}")
    parser.add_argument("--format", choices=FORMATS, default="table")
    try:
        asked = parser.parse_args(given)
    except SystemExit as end:  # argparse has said what is wrong, or given its help
        return int(end.code or 0)
    folder = typed_path("folder", asked.folder)
    if not folder.is_dir():
        raise SettingError("folder", f"'{asked.folder}' is no folder; name one that holds runs")
    FORMATS[asked.format](runs_in(folder), folder)
    return OK


def _plain(run: Listed) -> dict[str, Any]:
    """A run as other programs read it: all that is known, and how to go on."""
    return {
        **dataclasses.asdict(run),
        "folder": str(run.folder),
        "when": run.when.isoformat(sep=" ", timespec="seconds"),
        "resume": resume_command(run) if run.can_go_on else None,
    }


def resume_command(run: Listed) -> str:
    """What goes on with a run."""
    return f"hbdp-fed run resume={shlex.quote(str(run.folder))}"


def _as_json(runs: Sequence[Listed], folder: Path) -> None:
    sys.stdout.write(dumps([_plain(run) for run in runs], indent=2) + "\n")


def _as_csv(runs: Sequence[Listed], folder: Path) -> None:
    page = io.StringIO()
    risks = [field.name for field in dataclasses.fields(Listed) if field.name != "risk"]
    writer = csv.DictWriter(
        page, [*risks, "resume", "risk_attack", "risk_threat_model", "risk_success_rate"], lineterminator="\n"
    )
    writer.writeheader()
    for run in runs:
        plain = _plain(run)
        risk = plain.pop("risk") or {}
        writer.writerow({**plain, **{f"risk_{name}": value for name, value in risk.items()}})
    sys.stdout.write(page.getvalue())


def _as_table(runs: Sequence[Listed], folder: Path) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PAGE_WIDTH)
    if not runs:
        console.print(f"no runs in {folder}", markup=False, soft_wrap=True)
        return
    columns, width = _columns_for(console, runs, folder)
    table = _table(runs, folder, columns)
    table.columns[-1].width = width
    console.print(table)
    if len(columns) < len(_COLUMNS):
        left_out = ", ".join(name for name in _COLUMNS if name not in columns)
        console.print(f"no room for: {left_out}; --format json has everything", markup=False, soft_wrap=True)
    _show_rest(console, runs)


def _columns_for(console: Console, runs: Sequence[Listed], folder: Path) -> tuple[list[str], int]:
    """As many columns as there is room for, and what is left for the last one, the folder's, which may be folded."""
    columns = list(_COLUMNS)
    unlimited = console.options.update(max_width=_WIDEST)
    for name in (*_FIRST_TO_GO, None):
        table = _table(runs, folder, columns)
        wanted = Measurement.get(console, unlimited, table).maximum
        own = max(len(_COLUMNS[-1]), *(len(_cells(run, folder)[-1]) for run in runs))
        left = console.width - (wanted - own)
        if name is None or left >= min(own, _FOLDER_WIDTH):
            break
        columns.remove(name)
    return columns, max(1, min(own, left))


def _table(runs: Sequence[Listed], folder: Path, columns: Sequence[str]) -> Table:
    # Without vertical lines: the folder needs the room.
    table = Table(title=f"Runs in {escape(str(folder))}: {len(runs)}", box=SIMPLE_HEAD, show_edge=False)
    table.title_justify, table.title_style = "left", "bold"
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in columns:
        table.add_column(
            name, justify="right" if name in _NUMBERS else "left", overflow="fold", no_wrap=name != _COLUMNS[-1]
        )
    for run in runs:
        cells = dict(zip(_COLUMNS, _cells(run, folder), strict=True))
        table.add_row(*(escape(cells[name]) for name in columns))
    return table


_COLUMNS = (
    "when", "name", "state", "data", "clients", "eps", "rounds", "test", "largest risk", "model", "folder",
)  # fmt: skip
_FIRST_TO_GO = ("model", "name", "clients", "when", "data", "rounds", "largest risk")
"""Where the terminal is too narrow."""
_NUMBERS = {"clients", "eps", "rounds", "test"}
_FOLDER_WIDTH = 20


def _cells(run: Listed, folder: Path) -> tuple[str, ...]:
    risk = run.risk
    return (
        run.when.strftime("%Y-%m-%d %H:%M"),
        run.name or "-",
        run.state,
        run.data or "-",
        _number(run.clients),
        _number(run.eps),
        _rounds(run),
        "-" if run.utility is None else f"{(run.metric or '').upper()} {run.utility:.3f}",
        "-" if risk is None else f"{risk.success_rate:.1%} {risk.attack.replace('_', ' ')}",
        run.short_hash or "-",
        str(run.folder.relative_to(folder)) if run.folder != folder else run.folder.resolve().name,
    )


def _rounds(run: Listed) -> str:
    if run.rounds_done is None:
        return "-"
    return _number(run.rounds) if run.state == FINISHED else f"{run.rounds_done} of {run.rounds or '?'}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "inf" if math.isinf(value) else f"{value:g}"


def _show_rest(console: Console, runs: Sequence[Listed]) -> None:
    """Below the table: why runs failed or cannot be read, and how to go on with those that did not finish."""
    others = [run for run in runs if run.state != FINISHED]
    for run in others[-_NAMED:]:
        console.print(_explained(run), markup=False, soft_wrap=True)
    if len(others) > _NAMED:
        console.print(f"and {len(others) - _NAMED} older ones that did not finish: see --format json", markup=False)


def _explained(run: Listed) -> str:
    if run.state == BROKEN:
        return f"broken: {run.folder}: {run.reason}"
    far = f"after round {run.rounds_done}" + (f" of {run.rounds}" if run.rounds else "")
    how = f"go on with: {resume_command(run)}"
    if run.state == UNFINISHED:
        return f"cut off {far}, or still running; if it is not, {how}"
    return f"{run.state} {far}{f': {run.reason}' if run.reason else ''}; {how}"


FORMATS: Mapping[str, Callable[[Sequence[Listed], Path], None]] = {
    "table": _as_table, "json": _as_json, "csv": _as_csv,
}  # fmt: skip
"""How a list can be written."""


if __name__ == "__main__":
    sys.exit(main())
