"""Guarantees of several analyses and several hospitals together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hbdp_fed.privacy.accounting import history_epsilon
from hbdp_fed.privacy.history import Segment, check_delta
from hbdp_fed.types import Accountant, PrivacyBudget


def compose_basic(budgets: Iterable[PrivacyBudget]) -> PrivacyBudget:
    """The budget of several analyses of the same records: epsilons and deltas add up.

    Basic composition (Dwork and Roth 2014, theorem 3.16) needs to know nothing of the analyses but their budgets. Where
    their noise is known, composing the segments themselves
    (:func:`~hbdp_fed.privacy.accounting.history_epsilon`) gives less.

    Raises:
        ValueError: if there is no budget, or the deltas add up to 1 or more, which promises nothing.
    """
    given = _at_least_one(budgets)
    delta = sum(budget.delta for budget in given)
    if delta >= 1:
        raise ValueError(f"budgets: their deltas add up to {delta:g}, and from 1 on nothing is promised")
    return PrivacyBudget(epsilon=sum(budget.epsilon for budget in given), delta=delta)


def compose_parallel(budgets: Iterable[PrivacyBudget]) -> PrivacyBudget:
    """The budget of one record where every record is in one analysis alone: hospitals with disjoint patients.

    A record meets its own hospital's mechanism only; what the others release depends on it through public models, which
    is post-processing (parallel composition, McSherry 2009). So it has its own hospital's budget, and all of them
    together the weakest.

    Raises:
        ValueError: if there is no budget.
    """
    given = _at_least_one(budgets)
    return PrivacyBudget(epsilon=max(budget.epsilon for budget in given), delta=max(budget.delta for budget in given))


def shared_patient_epsilon(
    hospitals: Sequence[Iterable[Segment]], *, delta: float, accountant: Accountant = "rdp"
) -> float:
    """Epsilon of a patient with one record at each of k hospitals, for a release of everything that they release.

    Adding or removing the patient changes one record at every one of them. Hospitals draw their batches and noise
    independently, so the whole is one adaptive composition of all their steps: that of the joined history.

    Args:
        hospitals: The history of each hospital that holds a record of the patient, at least one.
        delta: For the patient, in (0, 1): a single delta of the whole, not one for each hospital.
        accountant: ``rdp`` or ``tight``.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    check_delta(delta)
    if not hospitals:
        raise ValueError("hospitals must hold at least one history")
    return history_epsilon(
        [segment for history in hospitals for segment in history], delta=delta, accountant=accountant
    )


def _at_least_one(budgets: Iterable[PrivacyBudget]) -> tuple[PrivacyBudget, ...]:
    given = tuple(budgets)
    if not given:
        raise ValueError("budgets must hold at least one budget")
    return given
