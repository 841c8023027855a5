"""Values that cannot mean anything cannot be built."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.types import DpSgdParams, HospitalPlan, ModelSpec, PrivacyBudget


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
