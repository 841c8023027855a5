"""What is shared of a run, a sweep or a plan: pages, texts and the run card, without small counts."""

from hbdp_fed.report.card import read_card, run_card
from hbdp_fed.report.run_report import (
    render_report,
    render_report_markdown,
    report_figures,
    report_partition_figure,
)
from hbdp_fed.report.suppression import SMALLEST_COUNT

__all__ = [
    "SMALLEST_COUNT",
    "read_card",
    "render_report",
    "render_report_markdown",
    "report_figures",
    "report_partition_figure",
    "run_card",
]
