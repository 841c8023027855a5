"""The report of a sweep over budgets: the decision, utility against risk, and what is behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from hbdp_fed.audit import as_png
from hbdp_fed.audit.numbers import DASH, show_percent
from hbdp_fed.report.attack_view import criteria
from hbdp_fed.report.budgets import deciding_metric, eps_words
from hbdp_fed.report.decision_words import decision_words, frontier_words
from hbdp_fed.report.explained import ADVERSARIES, CAPABILITIES, LIMITS, SURFACES
from hbdp_fed.report.frontier_figures import any_attacked, budgets_figure, frontier_figure
from hbdp_fed.report.rendering import flat, inline, render_page, render_text, spoken
from hbdp_fed.report.suppression import SMALLEST_COUNT
from hbdp_fed.report.sweep_view import Written, group_view, labels_of, shareable_group

_NO_PICTURES: Mapping[str, bytes] = MappingProxyType({})
_NO_FILES: Mapping[str, str] = MappingProxyType({})


def render_sweep_report(
    sweep: Mapping[str, Any],
    *,
    recommendation: Mapping[str, Any] | None = None,
    grids: Mapping[str, bytes] = _NO_PICTURES,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The page as HTML, with its pictures inside.

    Args:
        sweep: As it is read from ``sweep.json``.
        recommendation: What a policy recommends on the sweep's first group (see ``plan.json``), if somebody asked.
        grids: By attack and surface, the picture of the best reconstructions with a row a budget, a PNG.
        environment: Versions and machine.
        smallest: Counts from 1 to just below this are not shown, nor what rests on one.
    """
    context = _context(sweep, recommendation, environment=environment, smallest=smallest)
    for place, group in enumerate(context["groups"]):
        own = recommendation if place == 0 else None
        drawn = sweep_figures(sweep, group=place, recommendation=own, smallest=smallest)
        group["pictures"] = {name: inline(as_png(figure)) for name, figure in drawn.items()}
    context["grids"] = [(_grid_words(name), inline(png)) for name, png in grids.items()]
    return render_page("sweep.html.j2", {**context, "sections": _sections(context)})


def render_sweep_markdown(
    sweep: Mapping[str, Any],
    *,
    recommendation: Mapping[str, Any] | None = None,
    pictures: Sequence[Mapping[str, str]] = (),
    grids: Mapping[str, str] = _NO_FILES,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The same as GitHub-flavoured Markdown.

    Args:
        sweep: As in :func:`render_sweep_report`, like everything that is not said here.
        recommendation: The same.
        pictures: For each group, by the names of :func:`sweep_figures`, the picture's path relative to the text.
        grids: By attack and surface, the picture's path relative to the text.
        environment: As in :func:`render_sweep_report`.
        smallest: The same.
    """
    context = _context(sweep, recommendation, environment=environment, smallest=smallest)
    words = {"frontier": "Utility against risk", "budgets": "Utility and risk over budgets"}
    for place, group in enumerate(context["groups"]):
        own = pictures[place] if place < len(pictures) else {}
        group["files"] = [(words.get(name, name), path) for name, path in own.items()]
    return render_text("sweep.md.j2", {**context, "grids": [(_grid_words(name), path) for name, path in grids.items()]})


def sweep_figures(
    sweep: Mapping[str, Any],
    *,
    group: int = 0,
    recommendation: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> dict[str, Figure]:
    """The pictures of one group, by name: ``frontier``, where something was attacked, and ``budgets``.

    None where no metric is known.
    """
    name = deciding_metric(sweep, recommendation)
    budgets = shareable_group(sweep["groups"][group], smallest=smallest)["budgets"]
    if name is None or not budgets:
        return {}
    policy = (recommendation or {}).get("policy")
    figures = {"budgets": budgets_figure(budgets, name, sweep=sweep)}
    if any_attacked(budgets, policy):
        figures = {"frontier": frontier_figure(budgets, name, sweep=sweep, policy=policy), **figures}
    return figures


def _context(
    sweep: Mapping[str, Any],
    recommendation: Mapping[str, Any] | None,
    *,
    environment: Mapping[str, Any] | None,
    smallest: int,
) -> dict[str, Any]:
    """What page and text have in common."""
    name = deciding_metric(sweep, recommendation)
    shown = [shareable_group(group, smallest=smallest) for group in sweep["groups"]]
    groups = [
        group_view(group, sweep, name, recommendation if place == 0 else None) for place, group in enumerate(shown)
    ]
    attacks = [attack for group in groups for attack in group["attacks"]]
    surfaces = {attack["surface"] for attack in attacks}
    for group, own in zip(groups, shown, strict=True):
        group["attacked"] = any_attacked(own["budgets"], (recommendation or {}).get("policy"))
        group["frontier_words"] = _in_words(group)
    return {
        "title": f"Budgets for {sweep['dataset']}",
        "sweep": {"settings": [], "failures": [], "pending": 0, "seeds": [], "time": None, **sweep},
        "smallest": smallest,
        "metric": name,
        "nothing": Written(DASH),
        "metrics": list(sweep.get("metrics") or ()),
        "labels": labels_of(sweep),
        "groups": groups,
        "recommendation": recommendation,
        "plain": decision_words(recommendation)
        if recommendation
        else frontier_words(shown[0]["budgets"] if shown else [], sweep, name),
        "verdicts": verdict_rows(recommendation),
        "criteria": criteria(attacks),
        "adversaries": ADVERSARIES,
        "capabilities": CAPABILITIES,
        "seen": {surface: words for surface, words in SURFACES.items() if surface in surfaces},
        "axes": [(key, [str(value) for value in values]) for key, values in (sweep.get("axes") or {}).items()],
        "environment": list(flat(environment or {})),
        "limit_lines": (*((recommendation or {}).get("not_covered") or ()), *LIMITS),
    }


def verdict_rows(recommendation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Each budget's verdict with its reasons."""
    chosen = (recommendation or {}).get("eps")
    return [
        {
            "eps": eps_words(entry["eps"]),
            "verdict": entry["verdict"],
            "reasons": list(entry.get("reasons") or ()),
            "chosen": chosen is not None and entry["eps"] == chosen,
        }
        for entry in (recommendation or {}).get("budgets") or ()
    ]


def _grid_words(name: str) -> str:
    """An attack and its surface, the usual surface left out."""
    return spoken(name.removesuffix("_gradient"))


def _in_words(group: Mapping[str, Any]) -> str:
    """The frontier for whoever does not see it."""
    told = []
    for row in group["rows"]:
        rebuilt = "nothing attacked" if row["rate"] is None else f"{show_percent(row['rate'])} rebuilt"
        told.append(f"epsilon {row['eps']}: {rebuilt}")
    return f"A point a budget, utility against records rebuilt: {'; '.join(told)}. The table below has all figures"


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The page's contents: anchors and headings of what is there."""
    several = len(context["groups"]) > 1
    found = [("decision", "In plain words")]
    for place, group in enumerate(context["groups"], start=1):
        at = f" ({group['words']})" if several else ""
        found.append((f"frontier-{place}", f"Utility against risk{at}"))
        if place == 1 and context["grids"]:
            found.append(("reconstructions", "Reconstructions"))
        if group["joining"]:
            found.append((f"joining-{place}", f"Gain by joining{at}"))
        if group["hospitals"]:
            found.append((f"hospitals-{place}", f"Hospitals{at}"))
    if context["sweep"]["failures"]:
        found.append(("failures", "Failures"))
    found += [("threat-models", "Threat models"), ("settings", "Settings")]
    if context["environment"]:
        found.append(("environment", "Environment"))
    return [*found, ("limits", "Limits")]
