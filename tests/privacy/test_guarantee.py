"""Every figure of a mechanism in one place."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.privacy.accounting import epsilon, epsilon_interval
from hbdp_fed.privacy.guarantee import protection
from hbdp_fed.privacy.reconstruction import relaxed_coherent, relaxed_paper, worst_case

MECHANISMS = [(1.0, 0.05, 2000), (0.7, 0.068, 301), (0.01, 0.0457, 2200), (3.0, 1.0, 100), (2.0, 0.3, 1)]


@pytest.mark.parametrize(("sigma", "q", "steps"), MECHANISMS)
def test_each_figure_is_that_of_the_function_which_answers_it_alone(sigma: float, q: float, steps: int) -> None:
    mechanism = {"noise_multiplier": sigma, "sample_rate": q, "steps": steps}
    found = protection(**mechanism, delta=1e-5, prior=0.01)
    assert found.eps_rdp == epsilon(**mechanism, delta=1e-5, accountant="rdp")
    assert found.eps_tight == epsilon(**mechanism, delta=1e-5, accountant="tight")
    assert (found.eps_lower, found.eps_tight) == epsilon_interval(**mechanism, delta=1e-5)
    assert found.worst_case == worst_case(**mechanism, prior=0.01)
    assert found.relaxed == relaxed_coherent(**mechanism, prior=0.01)
    assert found.relaxed_paper == relaxed_paper(**mechanism, prior=0.01)


@pytest.mark.parametrize(("sigma", "q", "steps"), MECHANISMS)
def test_epsilon_is_enclosed_and_a_risk_lies_between_the_prior_and_one(sigma: float, q: float, steps: int) -> None:
    found = protection(noise_multiplier=sigma, sample_rate=q, steps=steps, delta=1e-5, prior=0.01)
    assert 0 < found.eps_lower <= found.eps_tight <= found.eps_rdp < math.inf
    assert 0.01 <= found.relaxed <= found.worst_case <= 1
    assert 0.01 <= found.relaxed_paper <= found.worst_case * (1 + 5e-4)


@pytest.mark.parametrize(("q", "steps"), [(0.05, 30), (0.001, 2200), (1.0, 10)])
def test_without_noise_every_epsilon_is_infinite_and_only_never_being_drawn_protects(q: float, steps: int) -> None:
    found = protection(noise_multiplier=0.0, sample_rate=q, steps=steps, delta=1e-5, prior=0.01)
    assert found.eps_rdp == found.eps_tight == found.eps_lower == math.inf
    expected = 1 - (1 - q) ** steps * (1 - 0.01)
    assert [found.worst_case, found.relaxed, found.relaxed_paper] == pytest.approx([expected] * 3, rel=1e-12)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("noise_multiplier", -1.0), ("sample_rate", 0.0), ("steps", 0), ("delta", 0.0), ("delta", 1.0), ("prior", 0.0),
     ("prior", 1.0)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(argument: str, value: float) -> None:
    arguments = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10, "delta": 1e-5, "prior": 0.1, argument: value}
    with pytest.raises(ValueError, match=argument):
        protection(**arguments)  # type: ignore[arg-type]
