"""The summary's entry about patients whom several hospitals know."""

from __future__ import annotations

from typing import Any

from hbdp_fed.audit.overlap_words import ONE_RECORD_EACH, SAME_RECORDS, WHOLE_PATIENTS
from hbdp_fed.data.overlap import acquaintance
from hbdp_fed.privacy import Segment, shared_guarantee
from hbdp_fed.types import HospitalPlan
from simulations.prepare import Prepared
from simulations.units import PATIENT


def overlap_summary(prepared: Prepared) -> dict[str, Any] | None:
    """Who is known to several of the hospitals that train, and the guarantee of the least protected of them.

    Two ways lead there: ``partition.overlap`` puts the same records at two hospitals, and a natural partition may have
    a patient's records at several.

    Returns:
        ``patients`` of ``of`` patients (``unit`` says what they are) are known to several hospitals, a ``share`` of
        them; ``records`` are held by several. ``composed`` says of what ``eps_rdp``, ``eps_tight`` and
        ``worst_case_bound`` are: of the record itself, of a patient with all records (where those are the units), or of
        a person with one record at each hospital. ``hospitals`` is the combination with the largest ``eps_rdp``;
        ``exact`` whether each was computed by itself. None where nobody is known to several, or where the records are
        not here to be counted.
    """
    hospitals, config = prepared.federated.hospitals, prepared.config
    if len(hospitals) < 2 or config.federation.elsewhere:
        return None
    train = prepared.dataset.train
    known = acquaintance([hospital.indices for hospital in hospitals], train.groups)
    if not known.known_to:
        return None
    found = shared_guarantee(
        [planned_exposure(plan) for plan in prepared.plans],
        known.known_to,
        delta=config.delta,
        prior=config.adversary.prior,
    )
    return {
        "unit": "record" if train.groups is None else prepared.dataset.group,
        "patients": known.shared,
        "of": known.patients,
        "share": known.shared / known.patients,
        "records": known.records,
        "composed": _composed(prepared, held_twice=known.records > 0),
        "hospitals": [prepared.plans[place].name for place in found.hospitals],
        "eps_rdp": found.eps_rdp,
        "eps_tight": found.eps_tight,
        "worst_case_bound": found.worst_case,
        "exact": found.exact,
    }


def _composed(prepared: Prepared, *, held_twice: bool) -> str:
    if prepared.config.privacy.unit == PATIENT:
        return WHOLE_PATIENTS
    return SAME_RECORDS if held_twice else ONE_RECORD_EACH


def planned_exposure(plan: HospitalPlan) -> tuple[Segment, ...]:
    """What one unit of a hospital's is exposed to there, over all of its planned steps."""
    mechanism = plan.mechanism
    return (Segment(mechanism.noise_multiplier, mechanism.sample_rate, mechanism.steps),)
