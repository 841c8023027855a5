"""The pictures of a sweep: for every attack that rebuilds images, the best ones of each budget beside the originals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hbdp_fed.audit import Column, best_first, budget_figure, load_columns, save_figure
from hbdp_fed.audit.numbers import show_percent
from simulations.sweep.axes import written

_SHOWN = 5


def draw_reconstructions(sweep: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Draw one figure an attack and combination of the other axes, from what each run kept.

    Args:
        sweep: As ``sweep.json`` has it.
        folder: The sweep's.

    Yields:
        ``figures/<attack>_<surface>.png``, with the other axes' values behind where they vary.
    """
    for group in sweep["groups"]:
        keys = dict.fromkeys(
            (attack["name"], attack["surface"])
            for budget in group["budgets"]
            for entry in budget["risk"].values()
            for attack in entry["attacks"]
            if attack["kind"] == "reconstruction"
        )
        of = "".join(f"_{key}-{value}" for key, value in group["values"].items())
        for name, surface in keys:
            rows = list(_rows(group["budgets"], folder, name, surface))
            if any(columns for _, columns in rows):
                title = f"{name.replace('_', ' ')} ({surface.replace('_', ' ')}) on {sweep['dataset']}"
                path = folder / "figures" / f"{name}_{surface}{of}.png"
                save_figure(budget_figure(rows, title=title), path)
                yield path


def _rows(budgets: Any, folder: Path, name: str, surface: str) -> Iterator[tuple[str, list[Column]]]:
    for budget in budgets:
        attacks = [attack for entry in budget["risk"].values() for attack in entry["attacks"]]
        rates = [a["success_rate"] for a in attacks if (a["name"], a["surface"]) == (name, surface)]
        kept = [folder / run / "reconstructions" / f"{name}_{surface}.npz" for run in budget["runs"]]
        columns = [column for path in kept if path.is_file() for column in load_columns(path)]
        # Where an attack got nothing out, an empty row says so.
        if rates and rates[0] is not None:
            label = f"eps = {written(float(budget['eps']))}\n{show_percent(rates[0])} rebuilt"
            yield label, best_first(columns)[:_SHOWN]
