"""The only place where truth and reconstruction meet: matching, similarity, risk, and what people read of a run."""

from hbdp_fed.audit.baselines import Baselines, guess
from hbdp_fed.audit.figures import Column, best_columns, reconstruction_figure, save_figure
from hbdp_fed.audit.matching import Matching, match
from hbdp_fed.audit.report import render_report
from hbdp_fed.audit.risk import (
    CRITERION,
    SSIM_THRESHOLD,
    AttackFigures,
    ProbeOutcome,
    attack_figures,
    audit_probe,
    risk_summary,
    wilson_interval,
)
from hbdp_fed.audit.similarity import pairwise_ssim, psnr
from hbdp_fed.audit.utility_figures import (
    as_png,
    matrix_figure,
    partition_figure,
    subgroup_figure,
    summary_figures,
    training_figure,
)
from hbdp_fed.audit.wording import worst

__all__ = [
    "CRITERION",
    "SSIM_THRESHOLD",
    "AttackFigures",
    "Baselines",
    "Column",
    "Matching",
    "ProbeOutcome",
    "as_png",
    "attack_figures",
    "audit_probe",
    "best_columns",
    "guess",
    "match",
    "matrix_figure",
    "pairwise_ssim",
    "partition_figure",
    "psnr",
    "reconstruction_figure",
    "render_report",
    "risk_summary",
    "save_figure",
    "subgroup_figure",
    "summary_figures",
    "training_figure",
    "wilson_interval",
    "worst",
]
