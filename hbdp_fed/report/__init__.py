"""What is shared of a run, a sweep or a plan: pages, texts and the run card, without small counts."""

from hbdp_fed.report.card import read_card, run_card
from hbdp_fed.report.plan_report import plan_figures, render_plan_markdown, render_plan_report
from hbdp_fed.report.run_report import (
    render_report,
    render_report_markdown,
    report_figures,
    report_partition_figure,
)
from hbdp_fed.report.suppression import SMALLEST_COUNT
from hbdp_fed.report.sweep_report import render_sweep_markdown, render_sweep_report, sweep_figures

__all__ = [
    "SMALLEST_COUNT",
    "plan_figures",
    "read_card",
    "render_plan_markdown",
    "render_plan_report",
    "render_report",
    "render_report_markdown",
    "render_sweep_markdown",
    "render_sweep_report",
    "report_figures",
    "report_partition_figure",
    "run_card",
    "sweep_figures",
]
