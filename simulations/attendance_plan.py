"""Who will be there in which round, held against what the rounds need before anything is trained.

Outages follow from the seed and stragglers from the profiles, so that a round that cannot count is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.aggregation import AggregationSettings
from hbdp_fed.federation.aggregation import check as check_aggregation
from hbdp_fed.federation.clock import Attendance, attendance
from hbdp_fed.federation.rounds import participants
from hbdp_fed.federation.secure_plan import FEWEST
from hbdp_fed.training import NO_CORRECTION
from hbdp_fed.training.pace import Pace
from simulations.prepare import Prepared
from simulations.site_profiles import KEY


def paces(prepared: Prepared) -> Mapping[str, Pace]:
    """How quick each hospital is, by name."""
    views = prepared.local.multiplicity
    return {
        plan.name: Pace(profile, plan.expected_records * views)
        for plan, profile in zip(prepared.plans, prepared.profiles, strict=True)
    }


def check_attendance(prepared: Prepared) -> None:
    """Refuse a run of which a round or probe cannot count, or has fewer answers than the aggregation rule needs.

    Raises:
        SettingError: naming the first such round.
    """
    federation = prepared.config.federation
    if federation.deadline_s is None and all(profile.availability == 1 for profile in prepared.profiles):
        return
    fewest = len(prepared.plans)
    for found in _planned(prepared):
        needed = min(federation.min_hospitals, len(found.planned))
        if len(found.present) < needed:
            raise _lost(found, needed, "federation.min_hospitals")
        if federation.secure_aggregation and len(found.present) < FEWEST:
            raise _lost(found, FEWEST, "federation.secure_aggregation")
        fewest = min(fewest, len(found.present))
    if federation.on_failure == "abort":
        rule = AggregationSettings(federation.aggregation, trim=federation.trim, byzantine=federation.byzantine)
        check_aggregation(rule, fewest)


def _lost(found: Attendance, needed: int, who: str) -> SettingError:
    """Why a round cannot count, and what would help."""
    told = (
        f"round {found.round} cannot count: of its {len(found.planned)} hospitals {len(found.offline)} are offline and "
        f"{len(found.late)} late, and {who} asks for {needed}; "
    )
    if len(found.present) + len(found.late) < needed:
        return SettingError(KEY, told + "with another seed outages fall on other rounds")
    # With everybody in time it would count: the deadline is too short.
    quickest, slowest = min(found.seconds.values()), max(found.seconds.values())
    return SettingError("federation.deadline_s", f"{told}a round takes them {quickest:.3g} to {slowest:.3g} seconds")


def always_late(prepared: Prepared) -> Mapping[str, float]:
    """The hospitals that no training round waits for, with the simulated seconds that they would take."""
    deadline = prepared.config.federation.deadline_s
    steps, parameters = prepared.hyper.local_steps, model_size(prepared)
    corrected = is_corrected(prepared)
    seconds = {
        name: pace.seconds(parameters=parameters, steps=steps, corrected=corrected)
        for name, pace in paces(prepared).items()
    }
    return {name: own for name, own in seconds.items() if deadline is not None and own > deadline}


def model_size(prepared: Prepared) -> int:
    """Numbers in the model that travels in training rounds."""
    return sum(value.numel() for value in prepared.initial.values())


def is_corrected(prepared: Prepared) -> bool:
    """Whether SCAFFOLD's c travels with the model in training rounds."""
    return prepared.local.correction != NO_CORRECTION


def _planned(prepared: Prepared) -> Iterator[Attendance]:
    """The attendance of every training round and probe. Probes have no deadline, and their model's size is unknown."""
    federation, rounds = prepared.config.federation, prepared.hyper.rounds
    names, known = [plan.name for plan in prepared.plans], paces(prepared)
    for number in range(1, rounds + prepared.probes + 1):
        training = number <= rounds
        yield attendance(
            participants(prepared.config.seed, number, names, federation.participation) if training else names,
            known,
            seed=prepared.config.seed,
            number=number,
            parameters=model_size(prepared),
            steps=prepared.hyper.local_steps,
            corrected=training and is_corrected(prepared),
            deadline_s=federation.deadline_s if training else None,
        )
