"""The process of one cell: ``python -m simulations.sweep.job FOLDER CELL``, started by the sweep.

A process of its own keeps a run's memory, threads and crashes to itself. It ends after the round in hand, and can be
gone on with, when it is told to (SIGTERM) or when the sweep is no longer there, which it sees by its standard input.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from simulations.program import OK
from simulations.run import main as run
from simulations.run_folder import read_summary
from simulations.sweep.cells import Cell, compared_runs, is_finished
from simulations.sweep.request import read_request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what of the cell is not done; returns the exit code of the first run that fails, 0 if none does."""
    folder, name, part, *engine = list(sys.argv[1:] if arguments is None else arguments)
    request = read_request(Path(folder))
    (cell,) = (cell for cell in request.cells(engine) if cell.name == name)
    if part == "federation":
        return finish(Path(folder) / cell.name, cell.settings, engine)
    return _compared(Path(folder), cell, request.compared, engine)


def _compared(folder: Path, cell: Cell, wanted: Sequence[str], engine: Sequence[str]) -> int:
    summary = read_summary(folder / cell.name)
    for name, settings in compared_runs(cell, summary, wanted):
        if code := finish(folder / name, settings, engine):
            return code
    return OK


def finish(folder: Path, settings: Sequence[str], engine: Sequence[str]) -> int:
    """Begin a run, or go on with it; one that is finished is left as it is. Returns its exit code.

    Args:
        folder: The run's.
        settings: Its settings, as ``key=value``.
        engine: Those of them that may differ when it goes on.
    """
    print(f"--- {folder.name}", flush=True)
    if is_finished(folder):
        return OK
    if (folder / "config.yaml").is_file():
        return run([f"resume={folder}", *(text for text in engine if text.startswith("engine."))])
    # What ended before it had written down its settings had not trained either.
    shutil.rmtree(folder, ignore_errors=True)
    return run([*settings, f"run_dir={folder}"])


def _end_with_the_sweep() -> None:
    # Not through sys.stdin: a thread that waits inside its lock when the process ends would abort it.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    sys.exit(main())
