"""A plan as people see it in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.planning import CALIBRATED, GIVEN, PROFILE, Frontier, Plan, Recommendation, Simulation
from hbdp_fed.planning.consortium import DEFAULT_WATTS
from hbdp_fed.planning.protecting import HospitalBudget
from simulations.budget_table import interval, probability, significant

_MOST_ROWS = 80
"""Of budgets at hospitals; beyond them a person reads the report, or plan.json."""

_SOURCES = {GIVEN: "given", CALIBRATED: "measured here", PROFILE: "a default"}


def show_plan(console: Console, plan: Plan, *, predicted: Simulation | None) -> None:
    """All that can be said before training."""
    consortium, training = plan.consortium, plan.consortium.training
    shape = "x".join(map(str, consortium.image.shape))
    console.print(f"[bold]{escape(consortium.name)}[/bold] {escape(consortium.description)}".rstrip())
    console.print(
        f"{consortium.task}, {plan.size.architecture.name} of {plan.size.parameters:,} parameters, {shape} images, "
        f"{training.rounds} rounds x {training.local_steps} steps + {training.spare_steps} spare ones, "
        f"delta={consortium.delta:g}, accountant={consortium.accountant}",
        soft_wrap=True,
    )
    console.print(_hospitals(plan))
    _show_budgets(console, plan)
    for eps, problem in sorted(plan.refused.items()):
        console.print(f"not to be had: eps={eps:g}: {problem}", markup=False, soft_wrap=True)
    console.print(f"protected least: {plan.weakest.why}", markup=False, soft_wrap=True)
    _show_cost(console, plan)
    console.print(_leaving(plan))
    if predicted is not None:
        console.print(
            f"a simulation of this on this machine takes about {duration(predicted.seconds)} without attacks "
            f"({predicted.workers} hospitals at a time)",
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h`` or ``4.6 days``."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right")
    return table


def _hospitals(plan: Plan) -> Table:
    table = _table(
        "Hospitals",
        ("hospital", "records", "q", "batch", "records/s", "down/up Mbit/s", "reachable", "ceiling on epsilon"),
    )
    for hospital in plan.consortium.hospitals:
        batch, speed = plan.consortium.expected_batch(hospital), plan.speeds[hospital.name]
        table.add_row(
            escape(hospital.name),
            f"{hospital.records:,}",
            f"{batch / hospital.records:.4g}",
            f"{batch:.4g}",
            f"{speed.records_per_s:.4g} ({escape(hospital.gpu or _SOURCES[speed.source])})",
            f"{hospital.download_mbit_s:g}/{hospital.upload_mbit_s:g}",
            f"{hospital.availability:.0%}",
            "-" if hospital.ceiling is None else f"{hospital.ceiling:g}",
        )
    return table


def _show_budgets(console: Console, plan: Plan) -> None:
    names = ("hospital", "eps", "sigma", "epsilon (tight)", "worst case", "relaxed", "best PSNR (dB)", "allowed")
    table = _table(f"Budgets ({plan.consortium.training.steps} steps each)", names)
    if sum(len(rows) for rows in plan.table.values()) > _MOST_ROWS:
        console.print(f"{len(plan.table)} hospitals: what each budget gives each of them is in plan.json")
        return
    for name, rows in plan.table.items():
        for place, row in enumerate(rows):
            table.add_row(escape(name) if place == 0 else "", *_cells(row), end_section=place == len(rows) - 1)
    console.print(table)


def _cells(row: HospitalBudget) -> list[str]:
    ends = (None, None) if row.eps_tight is None else row.eps_tight
    return [
        f"{row.eps:g}",
        significant(row.noise_multiplier),
        interval(*ends),
        probability(row.worst_case),
        probability(row.relaxed),
        significant(row.best_psnr),
        "yes" if row.allowed else "no",
    ]


def _show_cost(console: Console, plan: Plan) -> None:
    table = _table("Cost", ("hospital", "computing a round", "line a round", "GB in all", "kWh in all"))
    for own in plan.cost.hospitals:
        table.add_row(
            escape(own.name),
            duration(own.compute_s),
            duration(own.transfer_s),
            f"{own.gigabytes:.3g}",
            f"{own.kilowatt_hours:.3g}",
        )
    console.print(table)
    a_round, total = plan.cost.round, plan.cost.total
    console.print(
        f"a round: {duration(a_round.seconds)} (waits for {escape(a_round.waits_for)}), {a_round.gigabytes:.3g} GB, "
        f"{a_round.watt_hours:.3g} Wh; in all: {duration(3600 * total.hours)}, {total.gigabytes:.3g} GB, "
        f"{total.kilowatt_hours:.3g} kWh",
        soft_wrap=True,
    )
    assumed = [own.name for own in plan.consortium.hospitals if "watts" not in own.model_fields_set]
    taken = f"; {', '.join(assumed)}: {DEFAULT_WATTS:g} W, an assumption" if assumed else ""
    console.print(f"energy is watts x computing time alone{taken}", soft_wrap=True, markup=False)
    if any(speed.source == PROFILE for speed in plan.speeds.values()):
        console.print("Speeds that are a default are plausible, not measured: calibrate=true measures.", soft_wrap=True)


def _leaving(plan: Plan) -> Table:
    eps = next((entry.at_eps for entry in plan.leaving), None)
    at = "" if eps is None else f" (at eps={eps:g})"
    names = ("if this one leaves", "records lost", "a round", "waits for", f"noise in the mean{at}", f"weakest{at}")
    table = _table("Leaving", names)
    for entry in plan.leaving:
        table.add_row(
            escape(entry.name),
            f"{entry.records_lost_share:.1%}",
            duration(entry.round_s),
            escape(entry.waits_for),
            "-" if entry.noise_factor is None else f"x {entry.noise_factor:.3f}",
            escape(entry.weakest or "-"),
        )
    return table


def show_recommendation(console: Console, found: Recommendation, frontier: Frontier, label: str) -> None:
    """The measured frontier, the answer, what would change it and what it does not cover."""
    table = _table(
        f"Measured: {frontier.name}",
        ("eps", label, "loss (95%)", f"{found.policy.threat_model} risk (95%)", "records", "verdict"),
    )
    for evidence, budget in zip(frontier.budgets, found.budgets, strict=True):
        risk = budget.risk
        table.add_row(
            f"{budget.eps:g}",
            significant(evidence.utility),
            _ends(budget.loss["lower"], budget.loss["upper"]),
            "-" if risk["upper"] is None else f"{risk['rate']:.1%} (up to {risk['upper']:.2%})",
            "-" if risk["records"] is None else str(risk["records"]),
            budget.verdict,
        )
    console.print(table)
    for budget in found.budgets:
        console.print(f"eps={budget.eps:g} {budget.verdict}: {'; '.join(budget.reasons)}", markup=False, soft_wrap=True)
    console.print(f"[bold]{escape(found.conclusion)}[/bold]", soft_wrap=True)
    console.print(f"policy: {found.policy_in_words}", markup=False, soft_wrap=True)
    for title, lines in (("what would change this", found.what_would_change), ("not covered", found.not_covered)):
        console.print(f"{title}:")
        for line in lines:
            console.print(f"  - {line}", markup=False, soft_wrap=True)


def _ends(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None or math.isnan(lower) or math.isnan(upper):
        return "-"
    return f"{lower:+.3f} to {upper:+.3f}"
