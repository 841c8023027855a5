"""The report of one run: a page that needs nothing beside it, or a text for where pages are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from hbdp_fed.audit import as_png, partition_figure, summary_figures, training_figure
from hbdp_fed.audit.overlap_words import overlap_words
from hbdp_fed.audit.wording import unit_word
from hbdp_fed.report.attack_view import attack_view, risk_view
from hbdp_fed.report.budgets import eps_words
from hbdp_fed.report.rendering import inline, render_page, render_text, spoken
from hbdp_fed.report.run_view import course, data_view, participation_view, settings_view, sites_view, utility_view
from hbdp_fed.report.run_words import risk_cards, run_words, utility_cards
from hbdp_fed.report.screening_words import screening_lines
from hbdp_fed.report.shareable import drawable, shareable_partition, shareable_summary
from hbdp_fed.report.suppression import SMALLEST_COUNT

_NO_PICTURES: Mapping[str, bytes] = MappingProxyType({})
_NO_FILES: Mapping[str, str] = MappingProxyType({})
_PLACED = ("partition", "matrix", "subgroups", "participation", "training")


def render_report(
    summary: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    reconstructions: Mapping[str, bytes] = _NO_PICTURES,
    pictures: Mapping[str, bytes] = _NO_PICTURES,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The page as HTML, with its pictures inside.

    Args:
        summary: A run's summary as it is read from ``summary.json``. Of its figures of utility, what is not there is
            left out of the page.
        history: A mapping a round with ``round`` and the metrics on validation; left out, the summary's
            ``validation_history``.
        reconstructions: By attack and surface, the picture of its best reconstructions, a PNG.
        pictures: PNGs by name, as in :func:`report_figures`: ``partition``, ``matrix``, ``subgroups`` and
            ``participation`` appear where they belong, any other one at the end under its name.
        settings: The run's resolved settings; left out, the page has its hyperparameters.
        environment: Versions and machine.
        smallest: Counts from 1 to just below this are not shown, nor what rests on one.
    """
    context = _context(summary, history, settings=settings, environment=environment, smallest=smallest)
    shown = {name: inline(png) for name, png in pictures.items()}
    if context["rounds"]:
        drawn = training_figure(
            drawable({"history": context["rounds"]})["history"],
            context["course"],
            chosen=summary["utility"].get("round"),
        )
        shown["training"] = inline(as_png(drawn))
    rebuilt = _with_entries(summary, {name: inline(png) for name, png in reconstructions.items()})
    more = [name for name in pictures if name not in _PLACED]
    context |= {"pictures": shown, "more_pictures": more, "reconstructions": rebuilt}
    return render_page("run.html.j2", {**context, "sections": _sections(context)})


def render_report_markdown(
    summary: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    reconstructions: Mapping[str, str] = _NO_FILES,
    pictures: Mapping[str, str] = _NO_FILES,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> str:
    """The same as GitHub-flavoured Markdown.

    Args:
        summary: As in :func:`render_report`, like everything that is not said here.
        history: The same.
        reconstructions: By attack and surface, the path of the picture relative to the text.
        pictures: By name, the path of the picture relative to the text.
        settings: As in :func:`render_report`.
        environment: The same.
        smallest: The same.
    """
    context = _context(summary, history, settings=settings, environment=environment, smallest=smallest)
    rebuilt = _with_entries(summary, reconstructions)
    return render_text("run.md.j2", {**context, "pictures": pictures, "reconstructions": rebuilt})


def report_figures(summary: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Figure]:
    """The pictures of :func:`hbdp_fed.audit.summary_figures`, without what is not to be shared."""
    return summary_figures(drawable(shareable_summary(summary, smallest=smallest)))


def report_partition_figure(partition: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> Figure:
    """The picture of :func:`hbdp_fed.audit.partition_figure`, without what is not to be shared."""
    return partition_figure(drawable({"partition": shareable_partition(partition, smallest=smallest)})["partition"])


def _context(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] | None,
    *,
    settings: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
    smallest: int,
) -> dict[str, Any]:
    """What page and text have in common."""
    shown = shareable_summary(summary, smallest=smallest)
    rounds = list((shown.get("validation_history") or []) if history is None else history)
    view = {**risk_view(shown), **utility_view(shown)}
    return {
        "title": f"{summary['dataset']} under epsilon {eps_words(summary['privacy']['eps'])}",
        "summary": shown,
        "smallest": smallest,
        "rounds": rounds,
        "course": course(shown, rounds),
        **view,
        **data_view(shown),
        **participation_view(shown),
        **settings_view(shown, settings, environment),
        **sites_view(shown),
        "overlap": overlap_words(shown["privacy"]),
        "summed": shown.get("secure_aggregation"),
        "screened": list(screening_lines(shown["screening"])) if shown.get("screening") else [],
        "unit": unit_word(summary),
        "plain": run_words(shown, view),
        "utility_cards": utility_cards(shown, view),
        "risk_cards": risk_cards(view),
    }


def _with_entries(summary: Mapping[str, Any], pictures: Mapping[str, str]) -> list[tuple[Mapping[str, Any], str]]:
    """Each picture of reconstructions with its attack's entry; without one, with its name alone."""
    entries = {
        f"{attack['name']}_{attack['surface']}": attack_view(attack)
        for entry in summary["risk"].values()
        for attack in entry["attacks"]
    }
    return [
        (entries.get(name, {"words": spoken(name), "success_rate": None}), picture)
        for name, picture in pictures.items()
    ]


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The page's contents: anchors and headings of what is there."""
    parts = (
        ("decision", "In plain words", True),
        ("risk", "Risk", True),
        ("screening", "Screening", context["screened"]),
        ("reconstructions", "Reconstructions", context["reconstructions"]),
        ("utility", "Utility", True),
        ("training", "Training", context["rounds"]),
        ("hospitals", "Hospitals", True),
        ("participation", "Participation", context["attending"] or context["attendance"]),
        ("secure", "Secure aggregation", context["summed"]),
        ("threat-models", "Threat models", True),
        ("ledger", "Ledger", context["ledger"]),
        ("settings", "Settings", True),
        ("environment", "Environment", context["environment"]),
        ("limits", "Limits", True),
    )
    return [(anchor, heading) for anchor, heading, there in parts if there]
