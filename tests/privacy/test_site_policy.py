"""What hospitals insist on: every reason to stay away is named, and asked for before anything is trained."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.privacy.site_policy import MAY_LEAVE, SitePolicy, Terms


def test_a_policy_that_is_kept_refuses_nothing() -> None:
    policy = SitePolicy(highest_epsilon=1e6, lowest_records=100, allowed_tasks=("multiclass", "binary"))
    assert policy.refusal(Terms(1e6, 100, "binary")) is None
    assert SitePolicy(math.inf, 0, ("binary",)).refusal(Terms(math.inf, 0, "binary")) is None


@pytest.mark.parametrize(
    ("eps", "records", "task", "told"),
    [
        (1e12, 100, "binary", "the plan's epsilon 1e+12 is above the ceiling of 1e+06"),
        (math.inf, 100, "binary", "the plan's epsilon inf is above the ceiling of 1e+06"),
        (1_000_000.1, 100, "binary", "the plan's epsilon 1000000.1 is above the ceiling of 1000000.0"),
        (math.nan, 100, "binary", "the plan's epsilon nan is above the ceiling of 1e+06"),
        (8.0, 99, "binary", "99 records are fewer than the least of 100"),
        (8.0, 100, "segmentation", "the task 'segmentation' is not allowed, only: multiclass, binary"),
        (
            1e7,
            0,
            "x",
            "the plan's epsilon 1e+07 is above the ceiling of 1e+06; 0 records are fewer than the least of 100; "
            "the task 'x' is not allowed, only: multiclass, binary",
        ),
    ],
)
def test_a_policy_names_every_problem_with_value_and_ceiling(eps: float, records: int, task: str, told: str) -> None:
    policy = SitePolicy(highest_epsilon=1e6, lowest_records=100, allowed_tasks=("multiclass", "binary"))
    assert policy.refusal(Terms(eps, records, task)) == told


def test_a_policy_that_cannot_be_is_refused() -> None:
    for eps in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="highest_epsilon must be positive"):
            SitePolicy(eps, 0, ())
    with pytest.raises(ValueError, match="lowest_records must be at least 0"):
        SitePolicy(1.0, -1, ())
    assert SitePolicy(1.0, 0, ()).refusal(Terms(1.0, 0, "binary")) == "the task 'binary' is not allowed, only: none"


def test_a_policy_names_models_and_noise_that_it_does_not_allow() -> None:
    policy = SitePolicy(math.inf, 0, ("binary",), allowed_models=("cnn", "resnet9"), secure_noise=True)
    assert policy.refusal(Terms(8.0, 1, "binary", model="resnet9")) is None
    told = policy.refusal(Terms(8.0, 1, "binary", model="mlp", secure_noise=False))
    assert told is not None
    assert "the model 'mlp' is not allowed, only: cnn, resnet9" in told
    assert "only secure noise is allowed" in told


def test_a_policy_allows_all_nets_of_a_name_or_single_ones() -> None:
    def refused(allowed: str, model: str | None) -> bool:
        policy = SitePolicy(math.inf, 0, ("binary",), allowed_models=(allowed,))
        return policy.refusal(Terms(8.0, 1, "binary", model=model)) is not None

    assert not refused("monai", "monai.UNet")
    assert not refused("monai.UNet", "monai.UNet")
    assert refused("monai.UNet", "monai.DenseNet121")
    assert refused("UNet", "monai.UNet")
    assert refused("monai.UNet", "monai")
    assert refused("monai", None)


def test_what_a_policy_does_not_name_stays_at_the_hospital() -> None:
    policy = SitePolicy(math.inf, 0, (), may_leave=("seconds",))
    assert {*policy.withheld, *policy.may_leave} == set(MAY_LEAVE)
    assert "loss" in policy.withheld
    with pytest.raises(ValueError, match="patients is none of records, records_seen"):
        SitePolicy(math.inf, 0, (), may_leave=("patients",))
