"""Two runs or sweeps side by side: ``python -m simulations.compare runs/a runs/b``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from hbdp_fed.audit.comparison import RunComparison, SweepComparison, compare_runs, compare_sweeps
from hbdp_fed.errors import SettingError, UserError
from hbdp_fed.seeding import generator
from hbdp_fed.strict_json import dumps, to_plain
from simulations.compare_input import SIDES, check_kinds, folders_of, read_run, read_sweep
from simulations.compare_pages import run_sections, sweep_sections
from simulations.compose import compose_run, typed_as
from simulations.output import check_format, chosen_format, output_file
from simulations.pages import Section, as_markdown, as_text, show_page
from simulations.positional import parted
from simulations.program import OK, exit_code, make_console
from simulations.schema import CompareConfig

_LOGGER = logging.getLogger(__name__)

TABLE, MARKDOWN, JSON = "table", "md", "json"
FORMATS = (TABLE, MARKDOWN, JSON)
BY_SUFFIX = {".md": MARKDOWN, ".json": JSON}

_MOST_REPLICATES = 1_000_000

HELP = """usage: python -m simulations.compare A B [key=value ...]

  python -m simulations.compare runs/a runs/b
  python -m simulations.compare 'runs/a/eps-inf_seed-*' 'runs/a/eps-1e9_seed-*' format=md
  python -m simulations.compare runs/a_seed-0,runs/a_seed-1 runs/b_seed-0,runs/b_seed-1 output=a_b.json
  python -m simulations.compare runs/sweep_a runs/sweep_b

A side is the folder of a finished run, several of them (as a rule one a seed) with commas between them or as a pattern
in quotes, or the folder of a sweep. Of runs it tells which settings, versions and machines differ, utility on the test
split, noise and epsilon, risk, answers of hospitals and time; of sweeps the same budget by budget. Where all runs were
judged on the same test records, the difference of utility has an interval of a paired bootstrap over patients.

settings:
  format=table     table, md or json; left out, it is what the suffix of output says (.md or .json), and else table
  output=FILE      a file to write instead of the screen
  replicates=2000  resamples of the bootstrap
  seed=0           the bootstrap's own

exit codes: 0 done, 2 something given cannot be used, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        Console(highlight=False, markup=False, soft_wrap=True).print(HELP)
        return OK
    names, settings = parted(given)
    config = typed_as(CompareConfig, compose_run(settings, config_name="compare"))
    _check(config)
    if len(names) != len(SIDES):
        raise UserError(
            f"name two sides, A and B, got {len(names)}; several runs of a side are joined by commas or named by a "
            "pattern in quotes, as in 'runs/a_seed-*'"
        )
    target = output_file(config.output)
    form = chosen_format(config.format, target, by_suffix=BY_SUFFIX, otherwise=TABLE)
    with _as_written(names):
        found = _compared(names, config)
        text = _text(form, found)
    if target is not None:
        target.write_text(text, encoding="utf-8")
        make_console().print(f"{form}: {target}", markup=False, soft_wrap=True)
    elif form == TABLE:
        show_page(make_console(), *_page(found))
    else:
        sys.stdout.write(text)
    return OK


def _check(config: CompareConfig) -> None:
    check_format(config.format, FORMATS)
    if not 1 <= config.replicates <= _MOST_REPLICATES:
        raise SettingError("replicates", f"must be from 1 to {_MOST_REPLICATES}, got {config.replicates}")
    if config.seed < 0:
        raise SettingError("seed", f"must be at least 0, got {config.seed}")


def _compared(names: Sequence[str], config: CompareConfig) -> RunComparison | SweepComparison:
    sides = [folders_of(side, name) for side, name in zip(SIDES, names, strict=True)]
    if check_kinds(sides):
        (first,), (second,) = sides
        return compare_sweeps((first.name, second.name), read_sweep(first), read_sweep(second))
    before, after = ([read_run(named) for named in side] for side in sides)
    return compare_runs(before, after, replicates=config.replicates, generator=generator(config.seed, "compare"))


@contextmanager
def _as_written(names: Sequence[str]) -> Iterator[None]:
    """Figures of another kind than runs write show wherever they are first used: in the reading or in the table."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        _LOGGER.debug("figures that cannot be compared", exc_info=True)
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{' or '.join(names)} holds figures that are not as a run writes them ({told})") from error


def _page(found: RunComparison | SweepComparison) -> tuple[str, list[Section]]:
    if isinstance(found, RunComparison):
        return found.subject, run_sections(found)
    return f"{found.first} against {found.second}", sweep_sections(found)


def _text(form: str, found: RunComparison | SweepComparison) -> str:
    if form == JSON:
        kind = "run_comparison" if isinstance(found, RunComparison) else "sweep_comparison"
        return dumps({"schema": 1, "kind": kind, **to_plain(found)}, indent=2) + "\n"
    title, sections = _page(found)
    if form == MARKDOWN:
        return as_markdown(title, sections)
    return as_text(title, sections)


if __name__ == "__main__":
    sys.exit(main())
