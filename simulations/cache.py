"""The prepared records that runs keep: ``python -m simulations.cache [list | prune]``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.data.cache import Entry, entries_in, forget_contents, remove
from hbdp_fed.data.cache.listing import USABLE
from hbdp_fed.errors import SettingError, shown
from hbdp_fed.strict_json import dumps
from simulations.data_cache import AUTO_FOLDER, KEY
from simulations.program import OK, exit_code, make_console
from simulations.typed_path import typed_path

HELP = """Lists the prepared records that runs keep to start at once (data.cache), oldest use first: data sets with
their options, and the shards that hospitals read. They hold the images. Everything here can be deleted while no run is
going on: the next run makes what it needs again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    try:
        asked = _parser().parse_args(given)
    except SystemExit as end:  # argparse has said what is wrong, or given its help
        return int(end.code or 0)
    folder = typed_path("folder", asked.folder)
    if not folder.is_dir():
        raise SettingError("folder", f"'{asked.folder}' is no folder; name one that {KEY} named")
    if asked.work == "prune":
        return _prune(folder, unused=asked.unused, everything=asked.all)
    FORMATS[asked.format](entries_in(folder), folder)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hbdp-fed cache", description=HELP)
    parser.add_argument("work", nargs="?", choices=("list", "prune"), default="list")
    parser.add_argument("--folder", default=str(AUTO_FOLDER), help=f"where to look; default: {AUTO_FOLDER}")
    parser.add_argument("--format", choices=FORMATS, default="table", help="of list")
    parser.add_argument("--unused", type=int, metavar="DAYS", help="prune: also what no run has used for so long")
    parser.add_argument("--all", action="store_true", help="prune: everything; without it, what no run can use")
    return parser


def _prune(folder: Path, *, unused: int | None, everything: bool) -> int:
    """Delete what no run of this version can use, what was not used for so many days, or everything."""
    if unused is not None and unused < 0:
        raise SettingError("--unused", f"must be at least 0 days, got {unused}")
    now = datetime.now()

    def goes(entry: Entry) -> bool:
        old = unused is not None and now - entry.used >= timedelta(days=unused)
        return everything or old or entry.state != USABLE

    found = entries_in(folder)
    going = [entry for entry in found if goes(entry)]
    for entry in going:
        remove(entry)
    if everything:
        forget_contents(folder)
    freed = size_text(sum(entry.size for entry in going))
    make_console().print(
        f"removed {len(going)} of {len(found)} data sets, {freed}, from {folder}", markup=False, soft_wrap=True
    )
    return OK


def size_text(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _as_json(entries: Sequence[Entry], folder: Path) -> None:
    rows = [
        {**dataclasses.asdict(entry), "path": str(entry.path), "used": entry.used.isoformat(" ", "seconds")}
        for entry in entries
    ]
    sys.stdout.write(dumps(rows, indent=2) + "\n")


def _as_table(entries: Sequence[Entry], folder: Path) -> None:
    console: Console = make_console()
    if not entries:
        console.print(f"nothing is kept in {folder}", markup=False, soft_wrap=True)
        return
    whole = size_text(sum(entry.size for entry in entries))
    table = Table(title=f"Prepared records in {escape(str(folder))}: {whole}", title_justify="left", title_style="bold")
    for name in ("last used", "data", "size", "shards", "state", "options", "key"):
        table.add_column(name, justify="right" if name in {"size", "shards"} else "left", no_wrap=name != "options")
    for entry in entries:
        options = ", ".join(f"{name}={value}" for name, value in entry.options.items())
        table.add_row(
            entry.used.strftime("%Y-%m-%d %H:%M"),
            escape(shown(entry.name or "-")),
            size_text(entry.size),
            str(entry.shards),
            entry.state,
            escape(shown(options)),
            entry.path.name[:8],
        )
    console.print(table)


FORMATS: Mapping[str, Callable[[Sequence[Entry], Path], None]] = {"table": _as_table, "json": _as_json}
"""How a list can be written."""


if __name__ == "__main__":
    sys.exit(main())
