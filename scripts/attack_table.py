"""Run the main job over budgets and print one table: every attack's success beside its bound, a row a budget.

    python scripts/attack_table.py --budgets 1 8 1e6 1e12 inf -- clients=5 adversary.probes=4 adversary.targets=400
    python scripts/attack_table.py --folder runs/xray224 --budgets 1e6 1e9 inf -- data=chest_xray data.image_size=224

Every run is a full ``simulations.run`` in --folder; one that has its summary already is not run again, so that an
interrupted table goes on where it stopped. Prints Markdown. Each cell holds the success rate with its 95% interval,
over how many records, and the bound where theory gives one. For every attack that rebuilds images the five best
reconstructions of each budget are drawn beside the originals, as FOLDER/<attack>_<surface>.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from budget_table import finished

from hbdp_fed.audit import budget_figure, load_columns, save_figure
from hbdp_fed.audit.numbers import show_percent

Summary = Mapping[str, Any]
Key = tuple[str, str]


def entries(summary: Summary) -> dict[Key, Mapping[str, Any]]:
    """A run's attacks by name and surface."""
    return {(a["name"], a["surface"]): a for entry in summary["risk"].values() for a in entry["attacks"]}


def cell(entry: Mapping[str, Any] | None) -> str:
    """An attack's success in one run."""
    if entry is None or entry["success_rate"] is None:
        return "-"
    rate, low, high = (show_percent(value) for value in (entry["success_rate"], *entry["success_rate_ci95"]))
    text = f"{rate} ({low} to {high}), n={entry['records']}"
    if entry.get("bound") is not None:
        text += f"; bound {show_percent(entry['bound'])}"
    if entry.get("optimal") is not None:
        text += f", best possible {show_percent(entry['optimal'])}"
    return text + (" **above its bound**" if entry.get("above_bound") else "")


def table(runs: Mapping[str, Summary]) -> Iterator[str]:
    """The lines of the Markdown table; ``runs`` by budget."""
    keys = list(dict.fromkeys(key for summary in runs.values() for key in entries(summary)))
    columns = [
        "eps",
        "sigma",
        *(f"{name} ({surface})" for name, surface in keys),
        "bound, worst case",
        "bound, relaxed",
    ]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for budget, summary in runs.items():
        found = entries(summary)
        cells = [
            budget,
            f"{summary['privacy']['hospitals'][0]['noise_multiplier']:.3g}",
            *(cell(found.get(key)) for key in keys),
            *(show_percent(summary["risk"][model]["bound"]) for model in ("worst_case", "relaxed")),
        ]
        yield f"| {' | '.join(cells)} |"


def draw(runs: Mapping[str, Summary], folder: Path, seed: int) -> Iterator[Path]:
    """The figure of every attack that rebuilds images, from what each run kept of it."""
    keys = dict.fromkeys(
        key for summary in runs.values() for key, entry in entries(summary).items() if entry["kind"] == "reconstruction"
    )
    for name, surface in keys:
        rows = []
        for budget, summary in runs.items():
            kept = folder / f"eps-{budget}_seed-{seed}" / "reconstructions" / f"{name}_{surface}.npz"
            entry = entries(summary).get((name, surface))
            if kept.exists() and entry is not None and entry["success_rate"] is not None:
                rows.append((f"eps = {budget}\n{show_percent(entry['success_rate'])} rebuilt", load_columns(kept)))
        title = f"{name.replace('_', ' ')} ({surface}) on {next(iter(runs.values()))['dataset']}"
        path = folder / f"{name}_{surface}.png"
        save_figure(budget_figure(rows, title=title), path)
        yield path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1", "8", "1e6", "1e9", "1e12", "1e15", "inf"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/attack_table"))
    parser.add_argument("overrides", nargs="*", help="settings of every run, as in simulations.run")
    given = parser.parse_args(arguments)
    runs = {budget: finished(given.folder, budget, given.seed, given.overrides) for budget in given.budgets}
    print("\n".join(table(runs)))
    for path in draw(runs, given.folder, given.seed):
        print(path)


if __name__ == "__main__":
    main()
