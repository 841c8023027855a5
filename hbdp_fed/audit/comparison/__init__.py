"""Two sides of runs, or two sweeps, held beside each other: what was set, what came of it, and how sure the gap is."""

from hbdp_fed.audit.comparison.attacks import AttackPair, AttackSide, attack_pairs
from hbdp_fed.audit.comparison.judged import Judgement, Utility, compare_utility, judgement_of, read_predictions
from hbdp_fed.audit.comparison.runs import FinishedRun, RunComparison, compare_runs
from hbdp_fed.audit.comparison.sides import ABSENT, Sided, differing, flat
from hbdp_fed.audit.comparison.sweeps import BudgetPair, SeedUtility, SweepComparison, compare_sweeps

__all__ = [
    "ABSENT",
    "AttackPair",
    "AttackSide",
    "BudgetPair",
    "FinishedRun",
    "Judgement",
    "RunComparison",
    "SeedUtility",
    "Sided",
    "SweepComparison",
    "Utility",
    "attack_pairs",
    "compare_runs",
    "compare_sweeps",
    "compare_utility",
    "differing",
    "flat",
    "judgement_of",
    "read_predictions",
]
