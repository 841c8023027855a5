"""What a budget costs and what it prevents: accounting, calibration, composition, and a hospital's plan."""

from hbdp_fed.privacy.accounting import (
    ACCOUNTANTS,
    Accountant,
    calibrate,
    calibrate_history,
    delta_for,
    epsilon,
    epsilon_interval,
    epsilon_schedule,
    history_delta,
    history_epsilon,
    history_epsilon_interval,
)
from hbdp_fed.privacy.history import History, Segment
from hbdp_fed.privacy.plan import plan_hospital

__all__ = [
    "ACCOUNTANTS",
    "Accountant",
    "History",
    "Segment",
    "calibrate",
    "calibrate_history",
    "delta_for",
    "epsilon",
    "epsilon_interval",
    "epsilon_schedule",
    "history_delta",
    "history_epsilon",
    "history_epsilon_interval",
    "plan_hospital",
]
