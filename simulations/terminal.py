"""What a person sees: the plan, the progress, the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.audit import wording
from hbdp_fed.audit.overlap_words import overlap_words
from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN
from hbdp_fed.models import Replacement, grouped, title_of
from hbdp_fed.report.screening_words import screening_lines
from hbdp_fed.types import HospitalPlan, ModelSpec
from simulations.risk_lines import attack_lines, bound_line

_PLAN_ROWS = 20
_NAMED = 5
_CLASS_COLUMNS = 8
_LARGEST_CLASSES = 3
# A class's line in the final table is for a person to read, not for a search.
_CLASS_LINES = 10
# What a row of the final table leaves for its text: its first column and the frame take the rest.
_FRAME_WIDTH = 26


def show_plan(
    console: Console,
    plans: Sequence[HospitalPlan],
    *,
    title: str,
    noise_to_resolution: Sequence[tuple[float, float]],
    unit: str = "record",
) -> None:
    """A line a hospital: what it agrees to before training.

    Where the budget is for patients, or whatever the data set calls them, there is a column of their numbers.

    The last two columns compare one step's noise with the resolution of floating-point weights: where the first is
    small, sending float32 weights would have rounded the noise away; the second is what the float64 update keeps.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    units = [] if unit == "record" else [wording.plural(unit)]
    names = ("hospital", "records", *units, "q", "steps", "sigma", "clip", "epsilon", "noise/float32", "noise/float64")
    for name in names:
        table.add_column(name, justify="left" if name == "hospital" else "right")
    for plan, (single, double) in list(zip(plans, noise_to_resolution, strict=True))[:_PLAN_ROWS]:
        m = plan.mechanism
        table.add_row(
            plan.name,
            str(plan.num_records),
            *([str(plan.num_units)] if units else []),
            f"{m.sample_rate:.4g}",
            str(m.steps),
            f"{m.noise_multiplier:.4g}",
            _number(m.max_grad_norm),
            _number(plan.eps_rdp),
            f"{single:.3g}",
            f"{double:.3g}",
        )
    if len(plans) > _PLAN_ROWS:
        table.add_row(f"... {len(plans) - _PLAN_ROWS} more", *[""] * (len(names) - 1))
    console.print(table)


def show_overlap(console: Console, overlap: Mapping[str, Any] | None) -> None:
    """Whom several hospitals know, and what is left of their guarantee; nothing where nobody is."""
    if overlap is not None:
        console.print(overlap_words({"overlap": overlap}), markup=False, highlight=False, soft_wrap=True)


def show_result(console: Console, summary: Mapping[str, Any]) -> None:
    """The final table: utility, epsilon, what float numbers left of the noise, and risk under each threat model."""
    privacy, risk = summary["privacy"], summary["risk"]
    title = f"{summary['dataset']}, {summary['model']}, {summary['clients']} hospitals, eps={_number(privacy['eps'])}"
    table = Table(title=escape(title), title_justify="left", title_style="bold", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value")
    for name, line in _utility_rows(summary, width=console.width - _FRAME_WIDTH):
        table.add_row(escape(name), escape(line))
    rdp, tight = (_largest(hospital[name] for hospital in privacy["hospitals"]) for name in ("eps_rdp", "eps_tight"))
    per = wording.unit_word(summary)
    spent = f"{rdp} by RDP, in truth at most {tight} (delta {privacy['delta']:g}; per {per} and hospital)"
    table.add_row("epsilon spent", spent)
    for number, own in enumerate(_served(summary)):
        table.add_row("" if number else "by hospital", escape(own))
    known = overlap_words(privacy)
    if known:
        table.add_row("known to several", escape(known))
    absent = _absent(summary)
    if absent:
        table.add_row("participation", absent)
    for line in _noise_lines(summary["noise_to_resolution"]):
        table.add_row("noise/resolution", line)
    if summary.get("secure_aggregation"):
        table.add_row("secure sum", _sum_line(summary["secure_aggregation"]))
    _add_risk(table, risk)
    for number, line in enumerate(screening_lines(summary["screening"]) if summary.get("screening") else ()):
        table.add_row("" if number else "screening", escape(line))
    console.print(table)


def show_risk(console: Console, risk: Mapping[str, Any]) -> None:
    """The risk under each threat model alone."""
    table = Table(title="Risk", title_justify="left", title_style="bold", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value")
    _add_risk(table, risk)
    console.print(table)


def _add_risk(table: Table, risk: Mapping[str, Any]) -> None:
    for name, entry in risk.items():
        table.add_row(f"risk, {name.replace('_', ' ')}", bound_line(entry))
        for attack in entry["attacks"]:
            for line in attack_lines(attack):
                table.add_row("", escape(line))


def show_partition(console: Console, partition: Mapping[str, Any]) -> None:
    """A line a hospital: what it holds of each split and, of its training records, of each class.

    Args:
        console: Where to.
        partition: The summary's entry. Up to eight classes get a column each where the console has room for their
            names, otherwise one column has each hospital's largest ones.
    """
    hospitals = partition.get("hospitals") or []
    if not hospitals:
        return
    word, totals = wording.group_word(partition), list(wording.class_totals(partition))
    by = f" by {partition['column']}" if partition.get("column") else ""
    title = f"Who holds what: {partition.get('scheme') or 'a'} partition{by}"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    counts = ("train", "val", "test", *([wording.plural(word)] if word else []))
    table.add_column("hospital", no_wrap=True)
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    taken = max(len(hospital["name"]) for hospital in hospitals) + 4 + sum(max(len(name), 7) + 3 for name in counts)
    words = sum(max(6, *map(len, name.split())) + 3 for name in totals)
    columned = totals if len(totals) <= _CLASS_COLUMNS and taken + words <= console.width else []
    for name in columned:
        table.add_column(escape(name), justify="right", style="dim", overflow="fold")
    if totals and not columned:
        table.add_column("largest classes (training)", style="dim", overflow="fold")
    for hospital in hospitals[:_PLAN_ROWS]:
        classes = hospital.get("classes") or {}
        table.add_row(
            escape(hospital["name"]),
            *(_count(hospital.get(split)) for split in ("train", "val", "test")),
            *([_count(hospital.get("groups"))] if word else []),
            *(_count(classes.get(name, 0)) for name in columned),
            *([escape(_largest_classes(classes))] if totals and not columned else []),
        )
    if len(hospitals) > _PLAN_ROWS:
        table.add_row(f"... {len(hospitals) - _PLAN_ROWS} more")
    console.print(table)


def show_skipped(console: Console, skipped: Sequence[str]) -> None:
    """The records that were left out because their files could not be used, the first ones by name; nothing for none.

    Args:
        console: Where to.
        skipped: A line a record, with its path.
    """
    if not skipped:
        return
    lines = [f"left out {wording.counted(len(skipped), 'record')} (data.on_bad_record=skip):"]
    lines += [f"  {line}" for line in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
        lines.append(f"  and {len(skipped) - _NAMED:,} more")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def show_replaced(
    console: Console, architecture: ModelSpec, replaced: Sequence[Replacement], *, error: float | None
) -> None:
    """What was changed in a net that came from elsewhere, by kind, and how its gradients were verified.

    Args:
        console: Where to.
        architecture: The net.
        replaced: All changes. Their names are in the run's files.
        error: The relative error of its records' gradients; None where they were not tried, and nothing is shown.
    """
    if error is None:
        return
    kinds = [f"{len(one['modules']):,} x {one['before']} -> {one['after']}" for one in grouped(replaced)]
    changed = f"made ready for per-record clipping: {', '.join(kinds)}" if kinds else "nothing had to be replaced"
    lines = (
        f"{title_of(architecture)}: {changed}",
        f"per-record gradients verified on random images: relative error {error:.1e} to each record's own",
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _largest_classes(classes: Mapping[str, int]) -> str:
    """The largest classes with their counts, and how many others there are."""
    present = sorted(((count, name) for name, count in classes.items() if count), key=lambda pair: -pair[0])
    named = [f"{name}: {count:,}" for count, name in present[:_LARGEST_CLASSES]]
    more = len(present) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _utility_rows(summary: Mapping[str, Any], *, width: int) -> Iterator[tuple[str, str]]:
    """What the released model is worth: overall, by class, at the worst hospital and for the worst subgroups."""
    metrics, utility = wording.metrics_of(summary), summary["utility"]
    units = summary.get("units") or {}
    word = wording.group_word(summary.get("partition"))
    for index, line in enumerate(_figures_lines(metrics, utility, units, width=width)):
        yield "" if index else "utility (test)", line
    classes = wording.classes_of(summary)
    for number, (index, name) in enumerate(classes[:_CLASS_LINES]):
        own = [f"{metric}_{index}" for metric in metrics if f"{metric}_{index}" in utility]
        for line in _figures_lines(own, utility, units, width=width, start=f"{name}: "):
            yield "" if number else "  by class", line
    if len(classes) > _CLASS_LINES:
        yield "", f"... {len(classes) - _CLASS_LINES} more classes"
    if summary.get("worst_hospital"):
        yield "worst hospital", _worst_hospital(summary, word)
    yield from _subgroup_rows(summary, metrics, word)


def _figures_lines(
    metrics: Sequence[str], figures: wording.Figures, units: Mapping[str, str], *, width: int, start: str = ""
) -> Iterator[str]:
    """Figures with their intervals, as many to a line as find room there, none of them broken."""
    line = start
    for name in metrics:
        text = _figure(name, figures, units)
        if len(line) + len(text) > width and line.strip() and line != start:
            yield line.rstrip()
            line = " " * len(start)
        line += f"{text}   "
    yield line.rstrip()


def _figure(name: str, figures: wording.Figures, units: Mapping[str, str]) -> str:
    unit = units.get(name.rsplit("_", 1)[0] if name not in units else name)
    return f"{wording.metric(name).label} {wording.with_interval(name, figures)}{f' {unit}' if unit else ''}"


def _worst_hospital(summary: Mapping[str, Any], word: str | None) -> str:
    found = summary["worst_hospital"]
    metric = found["metric"]
    entries = (entry for entry in summary.get("utility_per_hospital") or () if entry.get("name") == found["name"])
    own = {**next(entries, {}), metric: found["value"]}
    on = wording.extent(own, word)
    return f"{found['name']}: {_figure(metric, own, summary.get('units') or {})}{f', {on}' if on else ''}"


def _served(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where hospitals differ in kind, what the model is worth at each and what its records' epsilon is."""
    kinds = {own["name"]: own["kind"] for own in (summary.get("sites") or {}).get("hospitals") or ()}
    if not any(kinds.values()):
        return
    metric = wording.selection_of(summary)[0]
    judged = {entry["name"]: entry for entry in summary.get("utility_per_hospital") or ()}
    hospitals = summary["privacy"]["hospitals"]
    for entry in hospitals[:_PLAN_ROWS]:
        own = judged.get(entry["name"])
        worth = "" if own is None else f"{wording.metric(metric).label} {wording.written(metric, own.get(metric))}, "
        epsilon = f"epsilon {_number(entry['eps_rdp'])}, in truth at most {_number(entry['eps_tight'])}"
        yield f"{entry['name']} ({kinds.get(entry['name'])}): {worth}{epsilon}"
    if len(hospitals) > _PLAN_ROWS:
        yield f"... {len(hospitals) - _PLAN_ROWS} more hospitals"


def _subgroup_rows(summary: Mapping[str, Any], metrics: Sequence[str], word: str | None) -> Iterator[tuple[str, str]]:
    """A line an attribute: whom the first metric serves worst, and whom best."""
    if not metrics:
        return
    metric = metrics[0]
    for index, (attribute, entries) in enumerate(
        wording.by_attribute(summary.get("utility_by_subgroup") or []).items()
    ):
        lowest, highest = wording.worst(metric, entries), wording.best(metric, entries)
        name = attribute.replace("_", " ")
        if lowest is None or highest is None:
            line = f"{name}: no group can be judged"
        else:
            on = wording.extent(lowest, word)
            line = f"{name}: {lowest['value']} {_figure(metric, lowest, summary.get('units') or {})}"
            line += f", {on}" if on else ""
            if highest is not lowest:
                line += f"; best {highest['value']} {wording.written(metric, highest[metric])}"
        yield "" if index else "worst subgroups", line


def _absent(summary: Mapping[str, Any]) -> str:
    """How many answers were missing as planned, and what the simulated clock says; empty where all were there."""
    found = summary.get("participation") or {}
    if not found.get("offline") and not found.get("late"):
        return ""
    seconds = summary["time"]["simulated_s"]
    return f"{found['offline']} times offline, {found['late']} times late; {seconds:.4g} s by the simulated clock"


def _largest(values: Iterable[float | str]) -> str:
    return _number(max(math.inf if value == "inf" else float(value) for value in values))


def _noise_lines(hospitals: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    noisy = [hospital for hospital in hospitals if hospital["effectively_gaussian"] is not None]
    if not noisy:
        sent = min(float(hospital["float64_delta"]) for hospital in hospitals)
        yield f"not told of the clipped sums, {sent:.3g} in the updates sent" if sent > 0 else "no noise"
        return
    summed, sent = (min(float(hospital[name]) for hospital in noisy) for name in ("clipped_sum", "float64_delta"))
    yield f"at least {summed:.3g} in the clipped sums, {sent:.3g} in the updates sent"
    coarse = [hospital["name"] for hospital in noisy if not hospital["effectively_gaussian"]]
    if coarse:
        names = ", ".join(coarse[:_NAMED]) + (f" and {len(coarse) - _NAMED} more" if len(coarse) > _NAMED else "")
        yield (
            f"WARNING: below {EFFECTIVELY_GAUSSIAN:g} at {names}: the noise is not effectively Gaussian and can be "
            "rounded off; training.precision=float64 restores it"
        )


def _sum_line(summed: Mapping[str, Any]) -> str:
    """What rounding to the grid of secure sums did."""
    noise = summed["least_noise_to_step"]
    kept = "" if noise is None else f"; noise at least {_number(noise)} steps of the grid"
    return f"means off by at most {_number(summed['largest_error'])} in a coordinate ({summed['bits']} bits){kept}"


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) or math.isinf(value):
        return "inf"
    return f"{value:.4g}"
