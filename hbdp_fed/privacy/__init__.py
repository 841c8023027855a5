"""What a budget costs and what it prevents: accounting, calibration, composition, and a hospital's plan."""

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hbdp_fed.types import Accountant

if TYPE_CHECKING:
    from hbdp_fed.privacy.accounting import (
        ACCOUNTANTS,
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
    from hbdp_fed.privacy.guarantee import Protection, protection
    from hbdp_fed.privacy.history import History, Segment
    from hbdp_fed.privacy.identification import best_identification, best_identification_interval
    from hbdp_fed.privacy.image_error import LinearProbe, noise_for_mse, noise_for_ncc, noise_for_psnr
    from hbdp_fed.privacy.plan import plan_hospital
    from hbdp_fed.privacy.reconstruction import (
        history_worst_case,
        relaxed_coherent,
        relaxed_coherent_interval,
        relaxed_paper,
        worst_case,
        worst_case_interval,
    )
    from hbdp_fed.privacy.shared import SharedGuarantee, shared_guarantee
    from hbdp_fed.privacy.surfaces import aggregate_noise_multiplier

__all__ = [
    "ACCOUNTANTS",
    "Accountant",
    "History",
    "LinearProbe",
    "Protection",
    "Segment",
    "SharedGuarantee",
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
    "history_worst_case",
    "least_epsilon",
    "noise_for_mse",
    "noise_for_ncc",
    "noise_for_psnr",
    "plan_hospital",
    "protection",
    "relaxed_coherent",
    "relaxed_coherent_interval",
    "relaxed_paper",
    "shared_guarantee",
    "shared_patient_epsilon",
    "worst_case",
    "worst_case_interval",
]

_HOMES: Sequence[tuple[Callable[[], ModuleType], tuple[str, ...]]] = (
    (
        lambda: import_module("hbdp_fed.privacy.accounting"),
        (
            "ACCOUNTANTS",
            "calibrate",
            "calibrate_history",
            "delta_for",
            "epsilon",
            "epsilon_interval",
            "epsilon_schedule",
            "history_delta",
            "history_epsilon",
            "history_epsilon_interval",
            "least_epsilon",
        ),
    ),
    (
        lambda: import_module("hbdp_fed.privacy.composition"),
        ("compose_basic", "compose_parallel", "shared_patient_epsilon"),
    ),
    (lambda: import_module("hbdp_fed.privacy.history"), ("History", "Segment")),
    (lambda: import_module("hbdp_fed.privacy.identification"), ("best_identification", "best_identification_interval")),
    (
        lambda: import_module("hbdp_fed.privacy.image_error"),
        ("LinearProbe", "noise_for_mse", "noise_for_ncc", "noise_for_psnr"),
    ),
    (lambda: import_module("hbdp_fed.privacy.plan"), ("plan_hospital",)),
    (lambda: import_module("hbdp_fed.privacy.guarantee"), ("Protection", "protection")),
    (
        lambda: import_module("hbdp_fed.privacy.reconstruction"),
        (
            "history_worst_case",
            "relaxed_coherent",
            "relaxed_coherent_interval",
            "relaxed_paper",
            "worst_case",
            "worst_case_interval",
        ),
    ),
    (lambda: import_module("hbdp_fed.privacy.shared"), ("SharedGuarantee", "shared_guarantee")),
    (lambda: import_module("hbdp_fed.privacy.surfaces"), ("aggregate_noise_multiplier",)),
)
"""A module, and which of these names it has."""


def __getattr__(name: str) -> Any:
    """Load a name's module when the name is first asked for.

    A hospital's process is started for every message, and what counts its budget takes seconds to load.
    """
    for module, names in _HOMES:
        if name in names:
            value = getattr(module(), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
