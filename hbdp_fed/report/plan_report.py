"""The report of a consortium's plan: what is recommended, what each budget prevents, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from hbdp_fed.audit import as_png
from hbdp_fed.report.decision_words import decision_words
from hbdp_fed.report.explained import ADVERSARIES, CAPABILITIES, LIMITS
from hbdp_fed.report.plan_figures import bounds_figure
from hbdp_fed.report.plan_view import bounds_by_hospital, plan_lines, protection_rows, shareable_plan
from hbdp_fed.report.rendering import flat, inline, render_page, render_text
from hbdp_fed.report.run_words import Verdict
from hbdp_fed.report.suppression import SMALLEST_COUNT
from hbdp_fed.report.sweep_report import verdict_rows

_NO_FILES: Mapping[str, str] = MappingProxyType({})
_ACCOUNTING = ("delta", "accountant", "prior")


def render_plan_report(
    plan: Mapping[str, Any],
    *,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The page as HTML, with its picture inside.

    Args:
        plan: As it is read from ``plan.json``.
        environment: Versions and machine.
        smallest: Counts from 1 to just below this are not shown, nor what rests on one.
    """
    context = _context(plan, environment=environment, smallest=smallest)
    drawn = plan_figures(plan, smallest=smallest).get("bounds")
    context["bounds_picture"] = None if drawn is None else inline(as_png(drawn))
    return render_page("plan.html.j2", {**context, "sections": _sections(context)})


def render_plan_markdown(
    plan: Mapping[str, Any],
    *,
    pictures: Mapping[str, str] = _NO_FILES,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The same as GitHub-flavoured Markdown.

    Args:
        plan: As in :func:`render_plan_report`, like everything that is not said here.
        pictures: By the names of :func:`plan_figures`, the picture's path relative to the text.
        environment: As in :func:`render_plan_report`.
        smallest: The same.
    """
    context = _context(plan, environment=environment, smallest=smallest)
    return render_text("plan.md.j2", {**context, "pictures": pictures})


def plan_figures(plan: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Figure]:
    """The pictures of a plan, by name: ``bounds``, where any hospital's may be shown."""
    bounds = bounds_by_hospital(shareable_plan(plan, smallest=smallest))
    return {"bounds": bounds_figure(bounds, prior=plan["prior"])} if bounds else {}


def _context(plan: Mapping[str, Any], *, environment: Mapping[str, Any] | None, smallest: int) -> dict[str, Any]:
    """What page and text have in common."""
    shown = shareable_plan(plan, smallest=smallest)
    recommendation = plan.get("recommendation")
    lines = plan_lines(shown)
    if recommendation:
        decided = decision_words(recommendation)
        plain = Verdict(decided.tone, decided.headline, (*decided.lines, *lines))
    else:
        plain = Verdict("", "Nothing is recommended: a plan alone does not measure utility.", tuple(lines))
    settings = {"training": plan["training"], **{name: plan.get(name) for name in _ACCOUNTING}}
    return {
        "title": f"Plan: {plan['name']}",
        "plan": {"description": "", "dataset": None, **shown},
        "smallest": smallest,
        "plain": plain,
        "recommendation": recommendation,
        "verdicts": verdict_rows(recommendation),
        "protection": list(protection_rows(shown)),
        "adversaries": ADVERSARIES,
        "capabilities": CAPABILITIES,
        "settings": list(flat(settings)),
        "environment": list(flat(environment or {})),
        "limit_lines": (*((recommendation or {}).get("not_covered") or ()), *LIMITS),
    }


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The page's contents: anchors and headings of what is there."""
    parts = (
        ("decision", "In plain words", True),
        ("protection", "Protection", True),
        ("hospitals", "Hospitals", True),
        ("cost", "Cost", True),
        ("leaving", "Leaving", context["plan"]["leaving"]),
        ("threat-models", "Threat models", True),
        ("settings", "Settings", True),
        ("environment", "Environment", context["environment"]),
        ("limits", "Limits", True),
    )
    return [(anchor, heading) for anchor, heading, there in parts if there]
