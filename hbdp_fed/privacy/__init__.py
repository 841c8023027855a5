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
    least_epsilon,
)
from hbdp_fed.privacy.composition import compose_basic, compose_parallel, shared_patient_epsilon
from hbdp_fed.privacy.history import History, Segment
from hbdp_fed.privacy.identification import best_identification, best_identification_interval
from hbdp_fed.privacy.image_error import LinearProbe, noise_for_mse, noise_for_ncc, noise_for_psnr
from hbdp_fed.privacy.plan import plan_hospital
from hbdp_fed.privacy.protection import Protection, protection
from hbdp_fed.privacy.reconstruction import (
    relaxed_coherent,
    relaxed_coherent_interval,
    relaxed_paper,
    worst_case,
    worst_case_interval,
)
from hbdp_fed.privacy.surfaces import aggregate_noise_multiplier

__all__ = [
    "ACCOUNTANTS",
    "Accountant",
    "History",
    "LinearProbe",
    "Protection",
    "Segment",
    "aggregate_noise_multiplier",
    "best_identification",
    "best_identification_interval",
    "calibrate",
    "calibrate_history",
    "compose_basic",
    "compose_parallel",
    "delta_for",
    "epsilon",
    "epsilon_interval",
    "epsilon_schedule",
    "history_delta",
    "history_epsilon",
    "history_epsilon_interval",
    "least_epsilon",
    "noise_for_mse",
    "noise_for_ncc",
    "noise_for_psnr",
    "plan_hospital",
    "protection",
    "relaxed_coherent",
    "relaxed_coherent_interval",
    "relaxed_paper",
    "shared_patient_epsilon",
    "worst_case",
    "worst_case_interval",
]
