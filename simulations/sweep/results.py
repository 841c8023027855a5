"""What a sweep leaves: its figures for programs, its tables and report for people, and what a policy makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.audit import wording
from hbdp_fed.planning import Policy, Recommendation, recommend
from hbdp_fed.planning import read_sweep as evidence_of
from hbdp_fed.strict_json import dumps, to_plain
from hbdp_fed.whole_files import write_whole
from simulations.compose import compose_run, typed
from simulations.reporting import write_sweep_reports
from simulations.run_folder import SWEEP_FILE
from simulations.sweep.gather import gather
from simulations.sweep.pictures import draw_reconstructions
from simulations.sweep.request import Request
from simulations.sweep.table import Sheet, as_csv, as_markdown, sheets


def write_results(
    folder: Path, request: Request, failures: Sequence[Mapping[str, Any]], time: Mapping[str, Any], console: Console
) -> None:
    """Sum up what is finished, write it down, and show it.

    Args:
        folder: The sweep's.
        request: What it was asked for.
        failures: What went wrong, a mapping a run.
        time: How long it took.
        console: Where to show tables and where the files are.
    """
    sweep = gather(folder, request, failures, time)
    write_whole(folder / SWEEP_FILE, dumps(sweep, indent=2) + "\n")
    plain = read_sweep(folder)
    tables = list(sheets(plain))
    (folder / "sweep.csv").write_text(as_csv(plain), encoding="utf-8")
    (folder / "sweep.md").write_text(as_markdown(tables), encoding="utf-8")
    _show(tables, console)
    drawn = list(draw_reconstructions(plain, folder))
    for path in drawn:
        console.print(f"best reconstructions: {path}", soft_wrap=True)
    found = recommended(plain)
    if found is not None:
        _show_recommendation(found, folder, console)
    shared = typed(compose_run(list(request.fixed)))
    grids = {path.stem: path for path in drawn}
    recommendation = None if found is None else to_plain(found)
    for report in write_sweep_reports(folder, plain, grids, shared, recommendation=recommendation):
        console.print(f"report: {report}", soft_wrap=True)
    for failure in failures:
        console.print(f"failed: {failure['run']}: {failure['reason']}", soft_wrap=True, markup=False)
    console.print(f"tables: {folder / 'sweep.md'}, {folder / 'sweep.csv'}, {folder / SWEEP_FILE}", soft_wrap=True)


def _show(tables: Sequence[Sheet], console: Console) -> None:
    for sheet in tables:
        table = Table(title=escape(sheet.title), title_justify="left", title_style="bold", show_lines=True)
        for name in sheet.narrow.columns:
            table.add_column(escape(name), justify="left", overflow="fold")
        for row in sheet.narrow.rows:
            table.add_row(*map(escape, row))
        console.print(table)


def _show_recommendation(found: Recommendation, folder: Path, console: Console) -> None:
    console.print(f"by the usual policy: {found.conclusion}", markup=False, soft_wrap=True)
    console.print(f"  {found.policy_in_words}", markup=False, soft_wrap=True)
    console.print(
        f"  python -m simulations.plan consortium=FILE sweep={folder} tells why and what would change it, and takes "
        "other policies",
        markup=False,
        soft_wrap=True,
    )


def recommended(sweep: Mapping[str, Any]) -> Recommendation | None:
    """What the policy that nobody has changed recommends on the first group; None where no run of it is finished."""
    if not sweep["groups"] or not sweep["groups"][0]["budgets"]:
        return None
    metric = wording.selection_of(sweep)[0]
    lower_is_better = wording.metric(metric).lower_is_better
    frontier = evidence_of(sweep).frontier(0, metric=metric, lower_is_better=lower_is_better)
    return recommend(frontier, Policy(metric=metric), metric_label=wording.label(metric))


def read_sweep(folder: Path) -> dict[str, Any]:
    """``sweep.json`` as it was written (infinities stay the string ``inf``)."""
    value: dict[str, Any] = json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8"))
    return value
