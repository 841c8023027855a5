"""The pictures of a sweep: utility against risk, and both over budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hbdp_fed.audit.sheets import INK, SOFT, entitle, sheet
from hbdp_fed.audit.wording import label, metric, number
from hbdp_fed.report.budgets import REALISTIC, eps_of, eps_words, is_control, limits_of, places, rate_of, riskiest
from hbdp_fed.report.rendering import spoken

_LINE, _GRID, _ALLOWED, _CONTROL = "#b9c1cb", "#e5e9ee", "#dcefe3", "#1d6b45"
# Tol 2021, Colour Schemes (SRON/EPS/TN/09-002), "bright": told apart with any colour vision; markers differ, too.
_STYLES = (("#4477aa", "o"), ("#ee6677", "s"), ("#228833", "^"), ("#aa3377", "D"), ("#66ccee", "v"), ("#bbaa33", "P"))
_POINT, _LEAK = "#4477aa", "#b3261e"
_WIDTH = 8.0
# Up to here the axis of success rates is linear, above it is logarithmic: small limits are what policies speak of.
_LINEAR_UP_TO = 0.01
_LEAST_GAP = 0.062
# Points whose interval ends below this have their names close by, the others at the right.
_NEAR, _NEAR_COLUMN, _FAR_COLUMN = 0.02, 0.38, 1.02
_CROWDED = 9


def any_attacked(budgets: Sequence[Mapping[str, Any]], policy: Mapping[str, Any] | None = None) -> bool:
    """Whether :func:`frontier_figure` has a point to draw."""
    return any(riskiest(budget, _threat_model(policy)) is not None for budget in budgets)


def _threat_model(policy: Mapping[str, Any] | None) -> str:
    return str((policy or {}).get("threat_model") or REALISTIC)


def frontier_figure(
    budgets: Sequence[Mapping[str, Any]],
    name: str,
    *,
    sweep: Mapping[str, Any],
    policy: Mapping[str, Any] | None = None,
) -> Figure:
    """Utility against risk: a point a budget, its name at the right.

    Across lies the success rate of the realistic reconstruction attack with the highest upper limit, with its 95%
    interval; up goes the mean of the metric over seeds, with its standard deviation. Budgets that nothing was attacked
    under, or of which the metric does not exist, are not drawn.

    Args:
        budgets: A group's, ascending.
        name: The metric.
        sweep: Whose they are: ``control`` is drawn as a line.
        policy: ``margin``, ``risk`` and ``threat_model``: what it allows is shaded.
    """
    threat_model = _threat_model(policy)
    points = [(budget, riskiest(budget, threat_model), number(_figure(budget, name).get("mean"))) for budget in budgets]
    drawn = [(budget, attack, mean) for budget, attack, mean in points if attack is not None and math.isfinite(mean)]
    figure = sheet(_WIDTH, 4.1)
    axes = figure.subplots()
    axes.set_xscale("symlog", linthresh=_LINEAR_UP_TO, linscale=0.6)
    axes.set_xlim(-0.0008, 1.25)
    axes.set_xticks([0, 0.01, 0.1, 1], ["0%", "1%", "10%", "100%"])
    for budget, attack, mean in drawn:
        low, high = limits_of(attack)
        sd = number(_figure(budget, name).get("sd"))
        colour = _LEAK if low > number(attack.get("control_success_rate") or 0.0) else _POINT
        axes.plot([low, high], [mean, mean], color=colour, linewidth=1.5, alpha=0.7)
        axes.plot([high], [mean], marker="|", markersize=9, color=colour)
        if math.isfinite(sd):
            axes.plot([rate_of(attack)] * 2, [mean - sd, mean + sd], color=colour, linewidth=1.1, alpha=0.7)
        axes.plot([rate_of(attack)], [mean], marker="o", markersize=7, color=colour, markeredgecolor="white")
    _control_line(axes, budgets, name, sweep)
    _room(axes)
    allowed = _shade(axes, budgets, name, sweep, policy)
    _names(
        axes,
        [(eps_words(budget["eps"]), rate_of(attack), limits_of(attack)[1], mean) for budget, attack, mean in drawn],
    )
    axes.set_xlabel(
        f"records that the strongest {spoken(threat_model)} attack rebuilds, with 95% interval", size=8.5, color=SOFT
    )
    axes.set_ylabel(label(name, sweep.get("units")), size=8.5, color=SOFT)
    bare(axes)
    line = "; dashed: the control" if any(is_control(budget, sweep) for budget in budgets) else ""
    more = "; green: what the policy allows" if allowed else ""
    entitle(
        figure,
        "Utility against risk",
        "a point a budget: mean over seeds with standard deviation; bars across: 95% intervals\n"
        f"red: more is rebuilt than by chance{line}{more}; small rates are stretched",
    )
    return figure


def budgets_figure(budgets: Sequence[Mapping[str, Any]], name: str, *, sweep: Mapping[str, Any]) -> Figure:
    """Utility and risk over budgets: above the metric beside the control's band, below the attacks and the bounds.

    Args:
        budgets: A group's, ascending.
        name: The metric.
        sweep: Whose they are.
    """
    figure = sheet(_WIDTH, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.25])
    across = places(budgets)
    _utility_over(upper, across, budgets, name, sweep)
    _risk_over(lower, across, budgets)
    lower.set_xticks(
        across, [eps_words(budget["eps"]) for budget in budgets], size=8, rotation=45 if len(budgets) > _CROWDED else 0
    )
    if any(math.isinf(eps_of(budget)) for budget in budgets) and len(budgets) > 1:
        for axes in (upper, lower):
            axes.axvline((across[-1] + across[-2]) / 2, color=_LINE, linewidth=0.8, linestyle=(0, (1, 3)))
    lower.set_xlabel("epsilon, on a logarithmic scale; inf: without noise", size=8.5, color=SOFT)
    for axes in (upper, lower):
        bare(axes)
    entitle(
        figure,
        "Utility and risk over budgets",
        "bars: standard deviation over seeds above, 95% intervals below\n"
        "dashed in an attack's colour: its own bound, which starts from its own guess",
    )
    return figure


def _figure(budget: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return (budget.get("utility") or {}).get(name) or {}


def _control(budgets: Sequence[Mapping[str, Any]], name: str, sweep: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation of the control; NaN where there is none."""
    own = next((_figure(budget, name) for budget in budgets if is_control(budget, sweep)), {})
    return number(own.get("mean")), number(own.get("sd"))


def _control_line(axes: Axes, budgets: Sequence[Mapping[str, Any]], name: str, sweep: Mapping[str, Any]) -> None:
    mean, _ = _control(budgets, name, sweep)
    if math.isfinite(mean):
        axes.axhline(mean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)


def _room(axes: Axes) -> None:
    """A little more than the points take, and never so little that noise looks like a cliff."""
    low, high = axes.get_ylim()
    spread = max(high - low, 0.04 * max(abs(low), abs(high), 0.5))
    axes.set_ylim((low + high - spread) / 2 - 0.12 * spread, (low + high + spread) / 2 + 0.12 * spread)


def _shade(
    axes: Axes,
    budgets: Sequence[Mapping[str, Any]],
    name: str,
    sweep: Mapping[str, Any],
    policy: Mapping[str, Any] | None,
) -> bool:
    """What the policy allows: risk below its limit, and utility no further from the control than its margin."""
    mean, _ = _control(budgets, name, sweep)
    risk, margin = number((policy or {}).get("risk")), number((policy or {}).get("margin"))
    if not all(map(math.isfinite, (mean, risk, margin))):
        return False
    low, high = axes.get_ylim()
    left = axes.get_xlim()[0]
    start, end = (low, mean + margin) if metric(name).lower_is_better else (mean - margin, high)
    if start < low or end > high:
        axes.set_ylim(min(low, start - margin), max(high, end + margin))
        low, high = axes.get_ylim()
        start, end = (low, mean + margin) if metric(name).lower_is_better else (mean - margin, high)
    axes.add_patch(Rectangle((left, start), risk - left, end - start, color=_ALLOWED, zorder=-1))
    axes.plot([risk, risk], [start, end], color=_CONTROL, linewidth=1)
    axes.plot([left, risk], [mean - margin if end == high else mean + margin] * 2, color=_CONTROL, linewidth=1)
    return True


def _names(axes: Axes, points: Sequence[tuple[str, float, float, float]]) -> None:
    """Each point's budget in one of two columns, apart from the next one, with a thin line to the point."""
    low, high = axes.get_ylim()
    near = [point for point in points if point[2] <= _NEAR]
    far = [point for point in points if point[2] > _NEAR]
    for column, own in ((_NEAR_COLUMN, near), (_FAR_COLUMN, far)):
        ordered = sorted(own, key=lambda point: point[3])
        heights = _apart([(mean - low) / (high - low) for *_, mean in ordered])
        for (text, rate, upper, mean), height in zip(ordered, heights, strict=True):
            axes.annotate(
                f"eps {text}", xy=(upper if own is near else rate, mean), xycoords="data", xytext=(column, height),
                textcoords="axes fraction", va="center", size=8.5, color=INK,
                arrowprops={"arrowstyle": "-", "color": _LINE, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5},
            )  # fmt: skip


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights along an axis, moved until no two names cover each other."""
    moved = list(heights)
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + _LEAST_GAP)
    limit = 0.98
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - _LEAST_GAP
    return moved


def _utility_over(
    axes: Axes, across: Sequence[float], budgets: Sequence[Mapping[str, Any]], name: str, sweep: Mapping[str, Any]
) -> None:
    mean, sd = _control(budgets, name, sweep)
    if math.isfinite(mean):
        axes.axhline(mean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0, label="control")
        if math.isfinite(sd):
            axes.axhspan(mean - sd, mean + sd, color="#eef1f4", zorder=-1)
    rows: list[tuple[str, list[Mapping[str, Any]]]] = [("federation", [_figure(budget, name) for budget in budgets])]
    for key, words in (("pooled", "all records in one place"), ("alone", "each hospital alone, on average")):
        own = [((budget.get("compared") or {}).get(key) or {}).get(name) or {} for budget in budgets]
        if any(own):
            rows.append((words, own))
    for (colour, marker), (words, figures) in zip(_STYLES, rows, strict=False):
        _series(axes, across, figures, colour, marker, words)
    axes.set_ylabel(label(name, sweep.get("units")), size=8.5, color=SOFT)
    _room(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, handlelength=1.6)


def _series(
    axes: Axes, across: Sequence[float], figures: Sequence[Mapping[str, Any]], colour: str, marker: str, words: str
) -> None:
    means = np.array([number(own.get("mean")) for own in figures])
    deviations = np.nan_to_num([number(own.get("sd")) for own in figures])
    means[~np.isfinite(means)] = np.nan
    axes.errorbar(
        across, means, yerr=deviations, color=colour, marker=marker, markersize=5, linewidth=1.4, elinewidth=1,
        capsize=2.5, label=words,
    )  # fmt: skip


def _risk_over(axes: Axes, across: Sequence[float], budgets: Sequence[Mapping[str, Any]]) -> None:
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for place, budget in enumerate(budgets):
        for entry in (budget.get("risk") or {}).values():
            for attack in entry.get("attacks") or ():
                found.setdefault((attack["name"], attack["surface"]), {})[place] = attack
    # Side by side, so that intervals do not cover each other.
    step = 0.012 * ((max(across) - min(across)) or 1.0)
    for number_, ((name, surface), own) in enumerate(found.items()):
        colour, marker = _STYLES[number_ % len(_STYLES)]
        shift = (number_ - (len(found) - 1) / 2) * step
        drawn = [place for place in own if not math.isnan(rate_of(own[place]))]
        rates = np.array([rate_of(own[place]) for place in drawn])
        ends = np.array([limits_of(own[place]) for place in drawn]).reshape(-1, 2)
        axes.errorbar(
            [across[place] + shift for place in drawn], rates,
            yerr=np.clip([rates - ends[:, 0], ends[:, 1] - rates], 0, None), color=colour, marker=marker, markersize=5,
            linewidth=1.2, elinewidth=1, capsize=2.5,
            label=spoken(name) if surface == "gradient" else f"{spoken(name)}, {spoken(surface)}",
        )  # fmt: skip
        own_bounds = [number(own[place].get("bound")) for place in drawn]
        if any(map(math.isfinite, own_bounds)):
            # A bound starts from what a guess scores, and an attack's guess need not be that of the threat model.
            axes.plot([across[place] for place in drawn], own_bounds, color=colour, linewidth=1, linestyle=(0, (5, 2)))
    for model, style in (("worst_case", (0, (5, 2))), ("relaxed", (0, (1, 1.5)))):
        bounds = [number(((budget.get("risk") or {}).get(model) or {}).get("bound")) for budget in budgets]
        if any(map(math.isfinite, bounds)):
            axes.plot(across, bounds, color=INK, linewidth=1.3, linestyle=style, label=f"bound, {spoken(model)}")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("records that the attack succeeds with", size=8.5, color=SOFT)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, handlelength=2.2)


def bare(axes: Axes) -> None:
    """No more ink than the figures need."""
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(colors=INK, labelsize=8, length=0)
