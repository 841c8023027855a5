"""The moving average against its definition as an explicit sum."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.training import averaged


def explicit(values: list[float], decay: float) -> float:
    """Round t's value weighs (1 - rate_t) times the rates of all later rounds; the start weighs all rates."""
    rates = [min(decay, (1 + t) / (10 + t)) for t in range(1, len(values))]
    weights = [math.prod(rates)] + [(1 - rate) * math.prod(rates[i + 1 :]) for i, rate in enumerate(rates)]
    assert math.isclose(sum(weights), 1.0)
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.9999])
def test_the_average_is_the_explicit_sum(decay: float) -> None:
    values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0]
    average = {"w": torch.tensor([values[0]], dtype=torch.float64)}
    for number, value in enumerate(values[1:], start=1):
        latest = {"w": torch.tensor([value], dtype=torch.float64)}
        average = dict(averaged(average, latest, round=number, decay=decay))
        assert average["w"].item() == pytest.approx(explicit(values[: number + 1], decay), rel=1e-12)


def test_without_decay_it_is_the_latest_bit_for_bit() -> None:
    latest = {"w": torch.tensor([-0.0, 1e-300, 3.0], dtype=torch.float64)}
    found = averaged({"w": torch.full((3,), math.nan)}, latest, round=5, decay=0.0)
    assert found["w"].numpy().tobytes() == latest["w"].numpy().tobytes()


def test_neither_input_is_changed() -> None:
    average, latest = {"w": torch.ones(2, dtype=torch.float64)}, {"w": torch.zeros(2, dtype=torch.float64)}
    averaged(average, latest, round=1, decay=0.9)
    assert average["w"].tolist() == [1, 1]
    assert latest["w"].tolist() == [0, 0]
