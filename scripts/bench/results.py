"""What the benchmark of training steps leaves: one row a model and mode, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from hbdp_fed.strict_json import dumps
from hbdp_fed.whole_files import write_whole


@dataclass(frozen=True)
class Setting:
    """Where and with what a row was measured.

    Attributes:
        device: ``cpu`` or ``cuda``.
        processor: The name of that processor.
        threads: How many threads PyTorch was given.
        torch: Version of PyTorch.
        opacus: Version of Opacus.
    """

    device: str
    processor: str
    threads: int
    torch: str
    opacus: str


@dataclass(frozen=True)
class Row:
    """One model in one mode. Figures are null where it does not run.

    Attributes:
        model: The case's name.
        mode: The mode's name.
        device: See :class:`Setting`.
        precision: What the layers computed in.
        ratio_to_sgd: Median over the repeats of the step's time over that of plain SGD in float32, in the same repeat.
        peak_memory_ratio: Peak memory over that of plain SGD in float32, both beyond weights and batch.
        batch: Records in the batch.
        step_ms: Median over the repeats of the time for one step, in milliseconds.
        ratio_min: The smallest ratio of any repeat.
        ratio_max: The largest one.
        peak_memory_mb: Peak memory beyond weights and batch, in 10^6 bytes.
        threads: See :class:`Setting`.
        processor: See :class:`Setting`.
        torch: See :class:`Setting`.
        opacus: See :class:`Setting`.
        error: Why it does not run; null where it does.
    """

    model: str
    mode: str
    device: str
    precision: str
    ratio_to_sgd: float | None
    peak_memory_ratio: float | None
    batch: int
    step_ms: float | None
    ratio_min: float | None
    ratio_max: float | None
    peak_memory_mb: float | None
    threads: int
    processor: str
    torch: str
    opacus: str
    error: str | None

    @property
    def setting(self) -> Setting:
        """Where it was measured."""
        return Setting(self.device, self.processor, self.threads, self.torch, self.opacus)

    @property
    def case(self) -> tuple[str, int, Setting]:
        """What was measured, apart from the mode."""
        return self.model, self.batch, self.setting


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none if it is not there."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """All at once or not at all: whoever is interrupted keeps what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, dumps(rows, indent=2) + "\n")


def screen_table(rows: Sequence[Row]) -> Table:
    """The rows of one case with all figures."""
    table = Table(title=f"{rows[0].model}, batch {rows[0].batch}", title_justify="left", title_style="bold")
    for name in ("mode", "precision", "step", "/ sgd's", "min to max", "peak", "/ sgd's"):
        table.add_column(name, justify="left" if name in ("mode", "precision") else "right", no_wrap=True)
    table.add_column("why not")
    for row in rows:
        spread = f"{_figure(row.ratio_min)} to {_figure(row.ratio_max)}" if row.ratio_to_sgd is not None else ""
        table.add_row(
            row.mode,
            row.precision,
            "" if row.step_ms is None else f"{row.step_ms:.1f} ms",
            _figure(row.ratio_to_sgd),
            spread,
            "" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.1f} MB",
            _figure(row.peak_memory_ratio),
            escape(row.error or ""),
        )
    return table


def markdown_tables(rows: Iterable[Row]) -> str:
    """A table for each machine: models by modes, each cell a time ratio and, in brackets, a memory ratio."""
    by_setting: dict[Setting, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(row.setting, []).append(row)
    return "\n\n".join(_markdown_table(setting, found) for setting, found in by_setting.items())


def _markdown_table(setting: Setting, rows: Sequence[Row]) -> str:
    modes = list(dict.fromkeys((row.mode, row.precision) for row in rows))
    cells = {((row.model, row.batch), (row.mode, row.precision)): _cell(row) for row in rows}
    lines = [
        f"{setting.processor}, {setting.device}, {setting.threads} threads, "
        f"PyTorch {setting.torch}, Opacus {setting.opacus}: time of a step (peak memory) over that of plain SGD in "
        "float32.",
        "",
        "| model | batch | " + " | ".join(_mode_name(*mode) for mode in modes) + " |",
        "|---|---:|" + "---:|" * len(modes),
    ]
    for model, batch in dict.fromkeys((row.model, row.batch) for row in rows):
        found = " | ".join(cells.get(((model, batch), mode), "") for mode in modes)
        lines.append(f"| {model} | {batch} | {found} |")
    return "\n".join(lines)


def _mode_name(mode: str, precision: str) -> str:
    return mode if precision == "float32" else f"{mode}, {precision}"


def _cell(row: Row) -> str:
    if row.error is not None:
        return "-"
    return f"{_figure(row.ratio_to_sgd)} ({_figure(row.peak_memory_ratio)})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
