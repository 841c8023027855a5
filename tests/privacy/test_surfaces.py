"""The noise between a record and the sum of all hospitals' updates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hbdp_fed.privacy.surfaces import aggregate_noise_multiplier


def simulated_multiplier(sigmas: list[float], sensitivities: list[float], *, hospital: int) -> float:
    """The spread of the hospitals' summed noise over what one record of a hospital moves the sum by."""
    rng = np.random.default_rng(5)
    noise = np.zeros(200_000)
    for sigma, sensitivity in zip(sigmas, sensitivities, strict=True):
        noise += rng.normal(0.0, sigma * sensitivity, len(noise))
    return float(noise.std() / sensitivities[hospital])


@pytest.mark.parametrize("hospitals", [1, 2, 5, 30])
def test_equal_hospitals_hide_each_other_by_the_root_of_their_number(hospitals: int) -> None:
    found = aggregate_noise_multiplier([0.7] * hospitals, hospital=hospitals - 1, local_steps=1)
    assert found == pytest.approx(math.sqrt(hospitals) * 0.7, rel=1e-12)


@pytest.mark.parametrize("hospital", [0, 1, 2])
@pytest.mark.parametrize(
    ("sigmas", "sensitivities"),
    [([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]), ([0.5, 1.0, 3.0], [1.0, 1.0, 1.0]), ([0.5, 1.0, 3.0], [0.1, 2.0, 0.7])],
)
def test_the_multiplier_is_the_noise_of_a_simulated_sum_over_the_records_sensitivity(
    sigmas: list[float], sensitivities: list[float], hospital: int
) -> None:
    found = aggregate_noise_multiplier(sigmas, hospital=hospital, local_steps=1, sensitivities=sensitivities)
    # The error of a standard deviation from n draws is 1/sqrt(2 n) of it.
    expected = simulated_multiplier(sigmas, sensitivities, hospital=hospital)
    assert found == pytest.approx(expected, rel=3 / math.sqrt(2 * 200_000))


def test_a_record_that_moves_the_sum_less_is_hidden_better() -> None:
    found = [
        aggregate_noise_multiplier([1.0, 1.0], hospital=hospital, local_steps=1, sensitivities=[1.0, 2.0])
        for hospital in (0, 1)
    ]
    assert found == pytest.approx([math.sqrt(5), math.sqrt(5) / 2], rel=1e-12)


def test_only_the_ratio_of_sensitivities_matters() -> None:
    small = aggregate_noise_multiplier([1.0, 2.0], hospital=0, local_steps=1, sensitivities=[1e-3, 3e-3])
    large = aggregate_noise_multiplier([1.0, 2.0], hospital=0, local_steps=1, sensitivities=[1.0, 3.0])
    assert small == pytest.approx(large, rel=1e-12)


def test_hospitals_that_tell_their_noise_or_add_none_do_not_count() -> None:
    sigmas = [1.0, 2.0, 3.0]
    told = aggregate_noise_multiplier(sigmas, hospital=0, local_steps=1, honest=[True, False, True])
    silent = aggregate_noise_multiplier([1.0, 0.0, 3.0], hospital=0, local_steps=1)
    assert told == silent == pytest.approx(math.hypot(1.0, 3.0), rel=1e-12)
    alone = aggregate_noise_multiplier(sigmas, hospital=1, local_steps=1, honest=[False, True, False])
    assert alone == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("local_steps", [2, 10])
def test_several_local_steps_leave_a_hospital_with_its_own_noise(local_steps: int) -> None:
    found = aggregate_noise_multiplier(
        [1.0, 2.0, 3.0], hospital=1, local_steps=local_steps, sensitivities=[1.0, 5.0, 2.0]
    )
    assert found == 2.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [("noise_multipliers", [1.0, -1.0]), ("noise_multipliers", [1.0, math.inf]), ("noise_multipliers", [1.0, math.nan]),
     ("hospital", -1), ("hospital", 2), ("local_steps", 0),
     ("sensitivities", [1.0]), ("sensitivities", [1.0, 0.0]), ("sensitivities", [1.0, -1.0]),
     ("sensitivities", [1.0, math.inf]), ("sensitivities", [1.0, math.nan]),
     ("honest", [True]), ("honest", [False, True])],
)  # fmt: skip
@pytest.mark.parametrize("local_steps", [1, 2])
def test_an_argument_out_of_range_is_named(argument: str, value: object, local_steps: int) -> None:
    given = {"noise_multipliers": [1.0, 1.0], "hospital": 0, "local_steps": local_steps, argument: value}
    with pytest.raises(ValueError, match=argument):
        aggregate_noise_multiplier(**given)  # type: ignore[arg-type]


def test_no_hospital_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="hospital"):
        aggregate_noise_multiplier([], hospital=0, local_steps=1)
