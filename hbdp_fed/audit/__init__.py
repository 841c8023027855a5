"""The only place where truth and reconstruction meet: matching, similarity, risk figures and their picture."""

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

__all__ = [
    "CRITERION",
    "SSIM_THRESHOLD",
    "AttackFigures",
    "Baselines",
    "Column",
    "Matching",
    "ProbeOutcome",
    "attack_figures",
    "audit_probe",
    "best_columns",
    "guess",
    "match",
    "pairwise_ssim",
    "psnr",
    "reconstruction_figure",
    "render_report",
    "risk_summary",
    "save_figure",
    "wilson_interval",
]
