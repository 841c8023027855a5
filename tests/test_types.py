"""Values that cannot mean anything cannot be built."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hbdp_fed.adversary import REALISTIC, RELAXED, SURFACES, THREAT_MODELS, WORST_CASE
from hbdp_fed.types import (
    ALL_HOSPITALS,
    CandidateObservation,
    DpSgdParams,
    HospitalPlan,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PrivacyBudget,
    PublicSideInformation,
    Reconstruction,
    StepKnowledge,
    Surface,
    ThreatModel,
)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1, math.nan)])
def test_a_budget_out_of_range_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon|delta"):
        PrivacyBudget(epsilon=epsilon, delta=delta)


@pytest.mark.parametrize(
    ("field", "value"),
    [("noise_multiplier", -1), ("noise_multiplier", math.inf), ("max_grad_norm", 0), ("max_grad_norm", math.inf),
     ("sample_rate", 0), ("sample_rate", 1.01), ("steps", 0)],
)  # fmt: skip
def test_a_mechanism_out_of_range_is_refused(field: str, value: float) -> None:
    good = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "sample_rate": 0.5, "steps": 3}
    DpSgdParams(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"noise_multiplier|max_grad_norm|sample_rate|steps"):
        DpSgdParams(**{**good, field: value})  # type: ignore[arg-type]


def test_infinity_is_the_budget_without_privacy() -> None:
    assert not PrivacyBudget(epsilon=math.inf, delta=1e-5).is_private
    assert PrivacyBudget(epsilon=1e15, delta=1e-5).is_private


def test_a_model_specification_survives_json() -> None:
    spec = ModelSpec("cnn", {"width": 8, "base": {"name": "x", "args": {"a": [1, 2]}}})
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_the_expected_batch_is_rate_times_records() -> None:
    mechanism = DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=0.25, steps=3)
    assert HospitalPlan(name="h", num_records=40, mechanism=mechanism, eps_rdp=1.0).expected_batch == 10


def seen(
    threat_model: ThreatModel,
    *,
    surface: Surface = "gradient",
    hospital: str = "h",
    knowledge: StepKnowledge | None = None,
) -> Observation:
    public = PublicSideInformation(
        images=torch.zeros(1, 1, 4, 4),
        mechanism=DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=0.5, steps=3),
        optimizer=OptimizerSettings(),
        expected_batch=2.0,
    )
    return Observation(
        threat_model=dataclasses.replace(threat_model, surface=surface),
        architecture=ModelSpec("cnn"),
        model_before={},
        released=ModelUpdate(hospital, round=1, delta={}, num_records=4),
        public=public,
        knowledge=knowledge,
    )


KNOWLEDGE = StepKnowledge(others={"weight": torch.zeros(2)}, factor=0.5)


def test_only_a_perfect_algorithm_may_hold_knowledge_of_a_records_step() -> None:
    for threat_model in (RELAXED, WORST_CASE):
        assert seen(threat_model, knowledge=KNOWLEDGE).knowledge is KNOWLEDGE
    with pytest.raises(ValueError, match="the realistic threat model grants no knowledge of a record's step"):
        seen(REALISTIC, knowledge=KNOWLEDGE)
    # Neither can it be slipped in afterwards.
    plain = seen(REALISTIC)
    assert plain.knowledge is None
    with pytest.raises(ValueError, match="grants no knowledge"):
        dataclasses.replace(plain, knowledge=KNOWLEDGE)
    with pytest.raises(ValueError, match="grants no knowledge"):
        dataclasses.replace(seen(RELAXED, knowledge=KNOWLEDGE), threat_model=REALISTIC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.knowledge = KNOWLEDGE  # type: ignore[misc]


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("threat_model", THREAT_MODELS.values(), ids=THREAT_MODELS)
def test_a_surface_shows_single_hospitals_or_their_mean_and_never_the_other(
    threat_model: ThreatModel, surface: Surface
) -> None:
    shown, hidden = ("h", ALL_HOSPITALS) if surface in ("gradient", "update") else (ALL_HOSPITALS, "h")
    assert seen(threat_model, surface=surface, hospital=shown).released.hospital == shown
    with pytest.raises(ValueError, match=f"the {surface} surface does not show {hidden}'s answer"):
        seen(threat_model, surface=surface, hospital=hidden)


@pytest.mark.parametrize("threat_model", THREAT_MODELS.values(), ids=THREAT_MODELS)
def test_only_who_holds_candidates_may_see_them(threat_model: ThreatModel) -> None:
    def candidates() -> CandidateObservation:
        return CandidateObservation(
            threat_model=threat_model,
            projections=torch.zeros(1, 1, 2),
            squared_norms=torch.ones(1, 1, 2),
            noise_variance=torch.ones(1),
            participation=[(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))],
        )

    if threat_model.knows_candidates:
        assert candidates().threat_model is threat_model
    else:
        with pytest.raises(ValueError, match=f"the {threat_model.name} threat model grants no candidates"):
            candidates()
    assert [model.name for model in THREAT_MODELS.values() if model.knows_candidates] == ["worst_case"]


def test_a_reconstruction_has_unprocessed_estimates_only_where_an_attack_says_so() -> None:
    plain = Reconstruction(images=torch.zeros(0, 1, 4, 4), scores=torch.zeros(0))
    assert plain.unprocessed is None
    assert plain.details == {}
