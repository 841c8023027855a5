"""Measure what a private training step costs: this project's, Opacus' and torch.func's against plain SGD.

    python scripts/bench/dpsgd.py --models cnn resnet9_w16_28 --threads 2

A step goes from weights to updated weights on one fixed batch that lies in memory. The modes take turns, so that
whatever else the machine does meets all of them, and a ratio to plain SGD is taken within each turn. Peak memory is
that of preparing a mode and two steps, beyond the weights and the batch: what a mode keeps between steps counts.

A mode that a model cannot be trained in is listed with the reason. The results are written after every model: an
interrupted run leaves what it has, and --resume goes on from there.
"""

from __future__ import annotations

import argparse
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

# Read when PyTorch is first imported: its profiler would report every start and stop among the tables.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from cases import CASES, Case
from modes import MODES
from results import Setting, markdown_tables, read_rows, screen_table, write_rows
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from trial import Say, measure, measurements

from hbdp_fed.errors import SettingError
from hbdp_fed.training.device import DEVICES, resolve_device
from simulations.program import make_console

OUTPUT = Path("runs/bench/dpsgd.json")
REPEATS, QUICK_REPEATS = 5, 2


def processor_name(device: torch.device) -> str:
    """The name of the processor behind ``device``, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def setting_here(device: torch.device) -> Setting:
    """This machine, as the results describe it."""
    return Setting(
        device=device.type,
        processor=processor_name(device),
        threads=torch.get_num_threads(),
        torch=version("torch"),
        opacus=version("opacus"),
    )


def chosen_cases(arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    """What the command line asks for: models by name, or all that belong to the device, or the small ones of these."""
    if arguments.models:
        cases = [CASES[name] for name in arguments.models]
    else:
        cases = [case for case in CASES.values() if device.type in case.devices and case.quick >= arguments.quick]
    return [replace(case, batch=arguments.batch) for case in cases] if arguments.batch else cases


@contextmanager
def progress(console: Console, total: int) -> Iterator[Say]:
    """A line that says what is measured, with a bar; nothing where the output is not a terminal."""
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def say(note: str) -> None:
            bar.update(task, advance=1, description=note)

        yield say


def run(cases: Sequence[Case], setting: Setting, *, repeats: int, output: Path, resume: bool) -> None:
    """Measure the cases one after the other, show each and write the results so far.

    Args:
        cases: What to measure.
        setting: Where.
        repeats: How many turns the modes take.
        output: Where the results go. Without ``resume``, what is there is lost once the first case is done.
        resume: Keep what is there, and leave out the cases that were measured in the same setting.
    """
    console = make_console()
    rows = read_rows(output) if resume else []
    done = {row.case for row in rows}
    open_cases = [case for case in cases if (case.name, case.batch, setting) not in done]
    console.print(f"{setting.processor}, {setting.threads} threads: {', '.join(case.name for case in open_cases)}")
    with progress(console, total=len(open_cases) * measurements(MODES, repeats)) as say:
        for case in open_cases:
            found = measure(case, setting, MODES, repeats=repeats, say=say)
            rows.extend(found)
            write_rows(output, rows)
            console.print(screen_table(found))
    console.print(f"written to {output}")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", nargs="+", choices=list(CASES), metavar="NAME", help=f"of: {', '.join(CASES)}")
    made.add_argument("--batch", type=positive, help="records in a batch, instead of each model's own number")
    made.add_argument("--repeats", type=positive, help=f"turns of all modes (default: {REPEATS})")
    made.add_argument("--threads", type=positive, help="threads of PyTorch (default: all cores)")
    made.add_argument("--device", choices=DEVICES, default="auto")
    made.add_argument("--output", type=Path, default=OUTPUT)
    made.add_argument("--resume", action="store_true", help="keep the results in --output and add what is missing")
    made.add_argument("--quick", action="store_true", help=f"the small models, {QUICK_REPEATS} turns")
    made.add_argument("--markdown", action="store_true", help="measure nothing; print the results in --output")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.markdown:
        print(markdown_tables(read_rows(arguments.output)))
        return
    try:
        device = resolve_device(arguments.device)
    except SettingError as error:
        parser().error(str(error))
    torch.set_num_threads(arguments.threads or len(os.sched_getaffinity(0)))
    with warnings.catch_warnings():
        # The images need no gradient of their own, which is what this warning of Opacus' hooks is about.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        run(
            chosen_cases(arguments, device),
            setting_here(device),
            repeats=arguments.repeats or (QUICK_REPEATS if arguments.quick else REPEATS),
            output=arguments.output,
            resume=arguments.resume,
        )


if __name__ == "__main__":
    main()
