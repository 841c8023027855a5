"""From the folders of a sweep's runs to ``sweep.json``: what each setting came to over its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from hbdp_fed.audit import wording
from hbdp_fed.audit.pooling import pooled_risk
from hbdp_fed.audit.seed_difference import seed_differences
from hbdp_fed.data import POOLED
from hbdp_fed.seeding import generator
from hbdp_fed.strict_json import to_plain
from hbdp_fed.training.tasks import task_called
from simulations.run_folder import RunFolder, read_summary
from simulations.sweep.axes import BUDGET
from simulations.sweep.cells import ALONE, Cell, is_finished
from simulations.sweep.predictions import read_predictions
from simulations.sweep.request import Request

_REPLICATES = 1000
_DESCRIBED = ("task", "dataset", "class_names", "metrics", "selection", "units", "model", "clients")

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """A finished cell.

    Attributes:
        cell: Which one.
        summary: Of its federation.
        pooled: Of the run with all records in one place; None without one.
        alone: By hospital, of its run without the others.
    """

    cell: Cell
    summary: Summary
    pooled: Summary | None
    alone: Mapping[str, Summary]


def gather(folder: Path, request: Request, failures: Sequence[Mapping[str, Any]], time: Mapping[str, Any]) -> Summary:
    """What ``sweep.json`` holds, of the runs that are finished.

    Args:
        folder: The sweep's.
        request: What it was asked for.
        failures: What went wrong, a mapping a run.
        time: How long it took.
    """
    cells = request.cells()
    done = [_done(folder, cell) for cell in cells if is_finished(folder / cell.name)]
    failed = {failure["run"] for failure in failures}
    varying = [axis.key for axis in request.axes if axis.key != BUDGET]
    budgets = [float(value) for value in request.axes[-1].values]
    described = done[0].summary if done else {}
    combinations = list(dict.fromkeys(tuple((key, cell.values[key]) for key in varying) for cell in cells))
    control = math.inf if math.inf in budgets else None
    return {
        "schema": 1,
        "kind": "sweep",
        "name": request.name,
        **{name: described.get(name) for name in _DESCRIBED},
        "seeds": list(request.seeds),
        "settings": list(request.fixed),
        "axes": {axis.key: budgets if axis.key == BUDGET else list(axis.values) for axis in request.axes},
        "control": control,
        "groups": [
            {
                "values": dict(values),
                "budgets": list(_budgets(folder, done, dict(values), budgets, control)),
            }
            for values in combinations
        ],
        "failures": list(failures),
        "pending": sum(not is_finished(folder / cell.name) and cell.name not in failed for cell in cells),
        "time": {**time, "runs_s": sum(_seconds(one) for one in done)},
    }


def _done(folder: Path, cell: Cell) -> Done:
    summary = read_summary(folder / cell.name)
    names = [hospital["name"] for hospital in summary["privacy"]["hospitals"]]
    pooled = folder / cell.compared_name(POOLED)
    alone = {name: folder / cell.compared_name(ALONE, name) for name in names}
    return Done(
        cell,
        summary,
        read_summary(pooled) if is_finished(pooled) else None,
        {name: read_summary(path) for name, path in alone.items() if is_finished(path)},
    )


def _seconds(done: Done) -> float:
    others = [done.pooled] if done.pooled is not None else []
    return float(sum(one["time"]["total_s"] for one in (done.summary, *others, *done.alone.values())))


def _budgets(
    folder: Path, done: Sequence[Done], values: Mapping[str, str], budgets: Sequence[float], control: float | None
) -> Iterator[dict[str, Any]]:
    """An entry a budget of one combination of the other axes."""
    own = [one for one in done if all(one.cell.values[key] == value for key, value in values.items())]
    by_budget = {eps: [one for one in own if float(one.cell.values[BUDGET]) == eps] for eps in budgets}
    against = by_budget.get(control, []) if control is not None else []
    for eps, runs in by_budget.items():
        if runs:
            yield to_plain(_budget(folder, eps, runs, [] if eps == control else against))


def _budget(folder: Path, eps: float, runs: Sequence[Done], control: Sequence[Done]) -> dict[str, Any]:
    summaries = [one.summary for one in runs]
    metrics = wording.metrics_of(summaries[0])
    differences = _differences(folder, runs, control)
    hospitals = [hospital for summary in summaries for hospital in summary["privacy"]["hospitals"]]
    lowest, highest = (_over(hospitals, key) for key in ("eps_lower", "eps_tight"))
    return {
        "eps": eps,
        "seeds": [one.cell.seed for one in runs],
        "runs": [one.cell.name for one in runs],
        "noise_multiplier": _over(hospitals, "noise_multiplier"),
        "eps_rdp": _over(hospitals, "eps_rdp"),
        # Of the least protected hospital: its lower and its upper bound.
        "eps_tight": [lowest[1], highest[1]],
        "utility": {
            name: {**_spread([s["utility"].get(name) for s in summaries]), "difference": differences.get(name)}
            for name in metrics
        },
        "compared": _compared(runs, metrics),
        "joining": _joining(runs, metrics),
        "risk": pooled_risk([summary["risk"] for summary in summaries]),
        "hospitals": _hospitals(summaries),
        "time_s": _spread([summary["time"]["total_s"] for summary in summaries]),
    }


def _differences(folder: Path, runs: Sequence[Done], control: Sequence[Done]) -> Mapping[str, Any]:
    """Each figure less the control's, over the seeds that both have."""
    before, after = ({one.cell.seed: one for one in side} for side in (control, runs))
    seeds = [seed for seed in after if seed in before]
    if not seeds:
        return {}
    sides = [[_judged(folder, side[seed]) for seed in seeds] for side in (before, after)]
    found = seed_differences(
        task_called(runs[0].summary["task"]),
        [judged for judged, _ in sides[0]],
        [judged for judged, _ in sides[1]],
        sides[0][0][1],
        replicates=_REPLICATES,
        generator=generator(seeds[0], "sweep", "difference"),
    )
    return {name: to_plain(difference) for name, difference in found.items()}


def _judged(folder: Path, one: Done) -> Any:
    return read_predictions(RunFolder(folder / one.cell.name), one.summary)


def _compared(runs: Sequence[Done], metrics: Sequence[str]) -> dict[str, Any]:
    """All records in one place, and the mean over hospitals that train alone, all judged on all test records."""
    found: dict[str, Any] = {}
    pooled = [one.pooled for one in runs if one.pooled is not None]
    if pooled:
        found[POOLED] = {name: _spread([run["utility"].get(name) for run in pooled]) for name in metrics}
    alone = [list(one.alone.values()) for one in runs if one.alone and len(one.alone) == len(_names(one))]
    if alone:
        found[ALONE] = {
            name: _spread([_mean([run["utility"].get(name) for run in some]) for some in alone]) for name in metrics
        }
    return found


def _names(one: Done) -> list[str]:
    return [hospital["name"] for hospital in one.summary["privacy"]["hospitals"]]


def _joining(runs: Sequence[Done], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """What the federation is worth to each hospital on its own test records, beside itself alone."""
    with_alone = [one for one in runs if one.alone]
    if not with_alone:
        return []
    entries = []
    for name in _names(with_alone[0]):
        own = [one for one in with_alone if name in one.alone]
        if not own:
            continue
        federated = [_at(one.summary, name) for one in own]
        alone = [_at(one.alone[name], name) for one in own]
        pooled = [_at(one.pooled, name) for one in own if one.pooled is not None]
        sizes = [_held(one.summary, name) for one in own]
        entries.append(
            {
                "name": name,
                "records": round(float(np.mean(sizes))),
                "test_records": _fewest(federated, "records"),
                "test_groups": _fewest(federated, "groups"),
                "federated": {metric: _spread([at.get(metric) for at in federated]) for metric in metrics},
                "alone": {metric: _spread([at.get(metric) for at in alone]) for metric in metrics},
                "pooled": {metric: _spread([at.get(metric) for at in pooled]) for metric in metrics} if pooled else {},
                "gain": {
                    metric: _gain([at.get(metric) for at in alone], [at.get(metric) for at in federated])
                    for metric in metrics
                },
            }
        )
    return entries


def _at(summary: Summary, hospital: str) -> Mapping[str, Any]:
    """The figures on one hospital's own test records."""
    return next((entry for entry in summary["utility_per_hospital"] if entry["name"] == hospital), {})


def _fewest(found: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """On how few records or patients a figure rests, over the seeds; None where nobody counted."""
    counts = [entry[name] for entry in found if entry.get(name) is not None]
    return min(counts, default=None)


def _held(summary: Summary, hospital: str) -> int:
    (found,) = (entry for entry in summary["privacy"]["hospitals"] if entry["name"] == hospital)
    return int(found["num_records"])


def _hospitals(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Each hospital's protection, the weakest over the seeds: they deal records anew."""
    entries = []
    for name in dict.fromkeys(h["name"] for summary in summaries for h in summary["privacy"]["hospitals"]):
        own = [h for summary in summaries for h in summary["privacy"]["hospitals"] if h["name"] == name]
        entries.append(
            {
                "name": name,
                "records": _over(own, "num_records"),
                "noise_multiplier": _over(own, "noise_multiplier")[0],
                "eps_tight": _over(own, "eps_tight")[1],
                "bound_worst_case": _over(own, "worst_case_bound")[1],
                "bound_relaxed": _over(own, "relaxed_bound")[1],
            }
        )
    return entries


def _over(entries: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [wording.number(entry[key]) for entry in entries]
    return [min(values), max(values)]


def _mean(values: Sequence[float | str | None]) -> float | None:
    figures = [wording.number(value) for value in values]
    return None if any(math.isnan(value) for value in figures) else float(np.mean(figures))


def _spread(values: Sequence[float | str | None]) -> dict[str, Any]:
    """Mean and standard deviation over seeds; None where some seed does not have the figure."""
    mean = _mean(values)
    several = mean is not None and len(values) > 1 and math.isfinite(mean)
    deviation = float(np.std([wording.number(value) for value in values], ddof=1)) if several else None
    return {"mean": mean, "sd": deviation, "values": list(values)}


def _gain(before: Sequence[float | str | None], after: Sequence[float | str | None]) -> dict[str, Any]:
    """The mean difference with its 95% interval over seeds, by Student's law; of one seed, without interval."""
    differences = [wording.number(b) - wording.number(a) for a, b in zip(before, after, strict=True)]
    known = [value for value in differences if math.isfinite(value)]
    if not known or len(known) < len(before):
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(known))
    if len(known) == 1:
        return {"mean": mean, "low": None, "high": None}
    half = float(student.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / math.sqrt(len(known)))
    return {"mean": mean, "low": mean - half, "high": mean + half}
