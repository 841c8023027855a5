"""Consortium planning: what each budget costs and prevents before any training, and what a sweep recommends."""

from hbdp_fed.planning.calibration import CalibrationJob, Throughput
from hbdp_fed.planning.conditions import FAILS, MEETS, UNDECIDED
from hbdp_fed.planning.consortium import Consortium, HospitalEntry, check_budgets, read_consortium
from hbdp_fed.planning.cost import CALIBRATED, GIVEN, PROFILE, Cost, Speed, cost
from hbdp_fed.planning.frontier import Frontier, SweepFile, read_sweep
from hbdp_fed.planning.leaving import Leaving, leaving
from hbdp_fed.planning.model_size import ModelSize, local_settings, model_size
from hbdp_fed.planning.plan import Plan, fastest_processes, make_plan, plan_document
from hbdp_fed.planning.policy import Policy
from hbdp_fed.planning.protecting import HospitalBudget, Weakest, protections, weakest
from hbdp_fed.planning.recommendation import NO_BUDGET, NONE, RECOMMENDED, Recommendation, recommend
from hbdp_fed.planning.simulating import Simulation, simulation

__all__ = [
    "CALIBRATED",
    "FAILS",
    "GIVEN",
    "MEETS",
    "NONE",
    "NO_BUDGET",
    "PROFILE",
    "RECOMMENDED",
    "UNDECIDED",
    "CalibrationJob",
    "Consortium",
    "Cost",
    "Frontier",
    "HospitalBudget",
    "HospitalEntry",
    "Leaving",
    "ModelSize",
    "Plan",
    "Policy",
    "Recommendation",
    "Simulation",
    "Speed",
    "SweepFile",
    "Throughput",
    "Weakest",
    "check_budgets",
    "cost",
    "fastest_processes",
    "leaving",
    "local_settings",
    "make_plan",
    "model_size",
    "plan_document",
    "protections",
    "read_consortium",
    "read_sweep",
    "recommend",
    "simulation",
    "weakest",
]
