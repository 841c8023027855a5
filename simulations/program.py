"""What all programs do with what ends them: one clear line, and the documented exit code."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rich.console import Console

from hbdp_fed.errors import UserError, shown

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_LOG_WIDTH = 120
_LONGEST_LINE = 4000


def make_console() -> Console:
    """The console for results: as wide as the terminal, and wide enough for the tables where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)


def error_console() -> Console:
    """Where errors are told: plain text, never broken by Rich's markup or width."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def exit_code(work: Callable[[], int], *, failures: tuple[type[Exception], ...] = ()) -> int:
    """Do the work and return its exit code, or that of what ended it.

    Args:
        work: The program.
        failures: What may go wrong without anybody's mistake, with messages that need no traceback.
    """
    errors = error_console()
    try:
        return work()
    except UserError as error:
        errors.print(f"error: {_one_line(str(error))}")
        return BAD_INPUT
    except failures as failure:
        errors.print(f"error: {shown(str(failure))}")
        return FAILED
    except KeyboardInterrupt as interruption:
        errors.print(str(interruption) or "interrupted")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - a bug of ours ends with its traceback and the documented exit code
        errors.print(shown(traceback.format_exc()))
        return FAILED


def _one_line(text: str) -> str:
    """What a message repeats of a file may be of any length, and may hold what would act on a terminal."""
    line = " ".join(shown(text).split("\n"))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
