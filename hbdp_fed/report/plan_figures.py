"""The picture of a plan: what each budget prevents at each hospital."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from hbdp_fed.audit.sheets import SOFT, entitle, sheet
from hbdp_fed.report.budgets import eps_words, places
from hbdp_fed.report.frontier_figures import bare

_WIDTH = 8.0
_MOST = 8
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#66ccee", "#bbaa33", "#332288", "#999933")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def bounds_figure(bounds: Mapping[str, Sequence[tuple[float, float]]], *, prior: float) -> Figure:
    """The worst-case bound over budgets, a line a hospital.

    Args:
        bounds: By hospital, budgets and bounds, ascending. Of more than eight hospitals those with the largest and the
            smallest sum of bounds are drawn, four each.
        prior: What a guess has, drawn as a line.
    """
    ranked = sorted(bounds, key=lambda name: -sum(bound for _, bound in bounds[name]))
    shown = ranked if len(ranked) <= _MOST else [*ranked[: _MOST // 2], *ranked[-_MOST // 2 :]]
    budgets = sorted({eps for points in bounds.values() for eps, _ in points})
    across = dict(zip(budgets, places([{"eps": eps} for eps in budgets]), strict=True))
    figure = sheet(_WIDTH, 3.6)
    axes = figure.subplots()
    for place, name in enumerate(shown):
        points = bounds[name]
        axes.plot(
            [across[eps] for eps, _ in points], [bound for _, bound in points], color=_COLOURS[place],
            marker=_MARKERS[place], markersize=5, linewidth=1.4, label=name if len(name) <= 34 else f"{name[:31]}...",
        )  # fmt: skip
    axes.axhline(prior, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label="a guess")
    axes.set_xticks(list(across.values()), [eps_words(eps) for eps in budgets], rotation=45 if len(budgets) > 9 else 0)
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("worst-case bound", size=8.5, color=SOFT)
    without = "; inf: without noise" if any(map(math.isinf, budgets)) else ""
    axes.set_xlabel(f"epsilon, on a logarithmic scale{without}", size=8.5, color=SOFT)
    bare(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    left_out = len(bounds) - len(shown)
    more = f"; {left_out} hospitals between them are not drawn" if left_out else ""
    entitle(figure, "What theory leaves to the worst case", f"a line a hospital{more}; lower is better")
    return figure
