"""What of a run's summary may be shared: counts below a threshold, and figures that rest on them, are taken out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hbdp_fed.audit.wording import Figures, by_attribute, is_metric, metrics_of, worst
from hbdp_fed.report.shareable_attacks import shareable_risk
from hbdp_fed.report.suppression import (
    HIDDEN,
    SMALLEST_COUNT,
    TOO_FEW,
    Withheld,
    few,
    is_small,
    is_withheld,
    protect,
    protect_columns,
)

_RESTS_ON = ("records", "groups")
# With the expected batch, which is public, each of these tells how many records, or patients, a hospital has.
_TELL_RECORDS = (
    "sample_rate", "noise_multiplier", "eps_rdp", "eps_tight", "eps_lower", "worst_case_bound", "relaxed_bound",
    "relaxed_paper",
)  # fmt: skip


def shareable_summary(summary: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Any]:
    """The summary with a :class:`Withheld` in the place of everything that is not to be shared.

    Args:
        summary: As it is read from ``summary.json``; parts that an older one lacks stay away.
        smallest: Counts from 1 to just below this are not shown; 1 shows everything.

    Returns:
        A copy. ``skipped`` is empty where so few records were left out that they are not to be counted, and
        ``skipped_count`` says how many there are.
    """
    metrics, partition = metrics_of(summary), summary.get("partition") or {}
    hospitals = _partition(partition.get("hospitals") or [], smallest)
    records = _records(summary, hospitals, smallest)
    hidden = {name for name, count in records.items() if isinstance(count, Withheld)}
    judged = _judged(summary.get("utility_per_hospital") or [], smallest)
    skipped = list(summary.get("skipped") or [])
    found = {
        **summary,
        "utility": _whole(summary["utility"], smallest),
        "utility_per_hospital": judged,
        "utility_by_subgroup": _subgroups(summary.get("utility_by_subgroup") or [], smallest),
        "utility_matrix": _matrix(summary.get("utility_matrix"), judged),
        "worst_hospital": _worst(summary, judged, metrics),
        "privacy": {**summary["privacy"], "hospitals": _accounting(summary["privacy"], records, smallest)},
        "noise_to_resolution": _without(
            summary.get("noise_to_resolution") or [], hidden, ("float32_weights", "float64_delta", "clipped_sum")
        ),
        "risk": shareable_risk(summary["risk"], hidden=bool(hidden), smallest=smallest),
        "skipped": [] if is_small(len(skipped), smallest) else skipped,
        "skipped_count": few(smallest) if is_small(len(skipped), smallest) else len(skipped),
    }
    if summary["privacy"].get("overlap"):
        found["privacy"]["overlap"] = _overlap(summary["privacy"]["overlap"], hidden, smallest)
    if partition:
        found["partition"] = {**partition, "hospitals": hospitals}
    if "utility_validation" in summary:
        found["utility_validation"] = _whole(summary["utility_validation"] or {}, smallest)
    if "validation_history" in summary:
        found["validation_history"] = [_whole(entry, smallest) for entry in summary["validation_history"] or []]
    attending = (summary.get("participation") or {}).get("hospitals")
    if attending:
        own = _without(attending, hidden, ("eps_spent", "simulated_s"))
        found["participation"] = {**summary["participation"], "hospitals": own}
    return found


def shareable_partition(partition: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Any]:
    """The summary's entry ``partition`` alone, as :func:`shareable_summary` has it."""
    return {**partition, "hospitals": _partition(partition.get("hospitals") or [], smallest)}


def _partition(hospitals: Sequence[Mapping[str, Any]], smallest: int) -> list[dict[str, Any]]:
    """Who holds what: each column adds up to its split, the classes of a hospital to its training records."""
    shown = protect_columns(hospitals, ("train", "val", "test", "groups"), smallest=smallest)
    return [{**kept, "classes": _classes(whole, kept, smallest)} for whole, kept in zip(hospitals, shown, strict=True)]


def _classes(whole: Mapping[str, Any], kept: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    classes = whole.get("classes") or {}
    if is_withheld(kept, ("train",)):
        return {name: HIDDEN if count else count for name, count in classes.items()}
    # Where a record may have several findings, or none, they add up to nothing that anybody knows.
    adds_up = sum(classes.values()) == whole.get("train")
    return dict(zip(classes, protect(list(classes.values()), smallest=smallest, total_known=adds_up), strict=True))


def _records(summary: Mapping[str, Any], hospitals: Sequence[Mapping[str, Any]], smallest: int) -> dict[str, Any]:
    """By hospital its training records as they may be shown."""
    if hospitals:
        return {entry["name"]: entry.get("train") for entry in hospitals}
    planned = summary["privacy"]["hospitals"]
    return {
        entry["name"]: entry["num_records"] for entry in protect_columns(planned, ["num_records"], smallest=smallest)
    }


def _accounting(privacy: Mapping[str, Any], records: Mapping[str, Any], smallest: int) -> list[dict[str, Any]]:
    hospitals = privacy["hospitals"]
    counted = hospitals
    if privacy.get("unit", "record") != "record":
        counted = protect_columns(hospitals, ["num_units"], smallest=smallest)
    shown = []
    for whole, kept in zip(hospitals, counted, strict=True):
        hidden = {}
        if isinstance(count := records.get(whole["name"]), Withheld):
            hidden = {"num_records": count, **{name: HIDDEN for name in ("num_units",) if name in whole}}
        if hidden or is_withheld(kept, ["num_units"]):
            hidden |= dict.fromkeys([name for name in _TELL_RECORDS if name in whole], HIDDEN)
        shown.append({**kept, **hidden})
    return shown


def _overlap(overlap: Mapping[str, Any], hidden: Collection[str], smallest: int) -> Mapping[str, Any]:
    """Whom several hospitals know. Epsilon of a combination tells of its hospitals' records what their own would."""
    shown = dict(overlap)
    for name in ("patients", "records"):
        if is_small(overlap[name], smallest):
            shown |= {name: few(smallest), "share": HIDDEN}
    if any(name in hidden for name in overlap["hospitals"]):
        shown |= {"eps_rdp": HIDDEN, "eps_tight": HIDDEN, "worst_case_bound": HIDDEN}
    return shown


def _without(
    entries: Sequence[Mapping[str, Any]], hidden: Collection[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {**entry, **({name: HIDDEN for name in names if name in entry} if entry["name"] in hidden else {})}
        for entry in entries
    ]


def _whole(figures: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Figures over a whole split, which stand alone."""
    counts = {name: few(smallest) for name in _RESTS_ON if is_small(figures.get(name), smallest)}
    return _figures({**figures, **counts})


def _figures(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry, without the figures that rest on a count that is withheld."""
    if not is_withheld(entry, _RESTS_ON):
        return dict(entry)
    return {**entry, **{name: TOO_FEW for name in entry if is_metric(name)}, "ci95": {}}


def _judged(entries: Sequence[Mapping[str, Any]], smallest: int) -> list[dict[str, Any]]:
    return [_figures(entry) for entry in protect_columns(entries, _RESTS_ON, smallest=smallest)]


def _subgroups(entries: Sequence[Mapping[str, Any]], smallest: int) -> list[dict[str, Any]]:
    return [entry for members in by_attribute(entries).values() for entry in _judged(members, smallest)]


def _matrix(matrix: Mapping[str, Any] | None, judged: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if not matrix or not matrix.get("rows"):
        return matrix
    hidden = {entry["name"] for entry in judged if is_withheld(entry, _RESTS_ON)}
    rows = [
        {
            **row,
            "values": [
                TOO_FEW if name in hidden else value
                for name, value in zip(matrix["hospitals"], row["values"], strict=True)
            ],
        }
        for row in matrix["rows"]
    ]
    return {**matrix, "rows": rows}


def _worst(summary: Mapping[str, Any], judged: Sequence[Figures], metrics: Sequence[str]) -> Mapping[str, Any] | None:
    """The worst served hospital of those of which figures are shown."""
    told: Mapping[str, Any] | None = summary.get("worst_hospital")
    if told is None or not any(is_withheld(entry, _RESTS_ON) for entry in judged):
        return told
    name = told["metric"]
    least = worst(name, [entry for entry in judged if not isinstance(entry.get(name), Withheld)])
    return None if least is None else {"name": least["name"], "metric": name, "value": least[name]}


def drawable(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What pictures are drawn from: a summary that may be shared, with None where something is withheld.

    Classes of a hospital that are withheld become one part of its bar, ``not shown``, as large as the shown ones leave.
    """
    plain: dict[str, Any] = _blank(summary)
    partition = summary.get("partition") or {}
    if partition.get("hospitals"):
        plain["partition"]["hospitals"] = [_bar(entry) for entry in partition["hospitals"]]
    return plain


def _blank(value: Any) -> Any:
    if isinstance(value, Withheld):
        return None
    if isinstance(value, Mapping):
        return {name: _blank(part) for name, part in value.items()}
    return [_blank(part) for part in value] if isinstance(value, list | tuple) else value


def _bar(hospital: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = _blank(hospital)
    classes = {name: count for name, count in (plain.get("classes") or {}).items() if count is not None}
    if plain["train"] is None:
        return {**plain, "classes": {}}
    if len(classes) < len(plain.get("classes") or {}):
        rest = plain["train"] - sum(classes.values())
        classes |= {str(HIDDEN): rest} if rest > 0 else {}
    return {**plain, "classes": classes}
