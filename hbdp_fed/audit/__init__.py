"""The only place where truth and reconstruction meet: matching, similarity, risk, and what people read of a run."""

from hbdp_fed.audit.baselines import Baselines, guess
from hbdp_fed.audit.columns import Column, best_columns, best_first, load_columns, save_columns
from hbdp_fed.audit.criterion import DEFAULT_CRITERION, SSIM_THRESHOLD, Criterion
from hbdp_fed.audit.figures import budget_figure, reconstruction_figure, save_figure
from hbdp_fed.audit.grants import GrantedRecord, grant_step_knowledge
from hbdp_fed.audit.matching import Matching, match
from hbdp_fed.audit.outcomes import Originals, ProbeOutcome, audit_probe, originals_of
from hbdp_fed.audit.probe_law import LawFigures, law_figures
from hbdp_fed.audit.proportions import clustered_wilson, wilson_interval
from hbdp_fed.audit.replay import ReplayedBatch, SimulatedTraining, all_trained, replay_batch, replay_round
from hbdp_fed.audit.risk import AttackFigures, attack_figures, risk_summary
from hbdp_fed.audit.similarity import mse, ncc, pairwise_ssim, psnr
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
    "DEFAULT_CRITERION",
    "SSIM_THRESHOLD",
    "AttackFigures",
    "Baselines",
    "Column",
    "Criterion",
    "GrantedRecord",
    "LawFigures",
    "Matching",
    "Originals",
    "ProbeOutcome",
    "ReplayedBatch",
    "SimulatedTraining",
    "all_trained",
    "as_png",
    "attack_figures",
    "audit_probe",
    "best_columns",
    "best_first",
    "budget_figure",
    "clustered_wilson",
    "grant_step_knowledge",
    "guess",
    "law_figures",
    "load_columns",
    "match",
    "matrix_figure",
    "mse",
    "ncc",
    "originals_of",
    "pairwise_ssim",
    "partition_figure",
    "psnr",
    "reconstruction_figure",
    "replay_batch",
    "replay_round",
    "risk_summary",
    "save_columns",
    "save_figure",
    "subgroup_figure",
    "summary_figures",
    "training_figure",
    "wilson_interval",
    "worst",
]
