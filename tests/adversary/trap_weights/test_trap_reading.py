"""Reading made-up gradients of which everything is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.planted.evidence import Expectation
from hbdp_fed.adversary.planted.gradient import PlantedGradient
from hbdp_fed.adversary.trap_weights import reading
from hbdp_fed.adversary.trap_weights.reading import discriminating_metric, doubt, read_records
from hbdp_fed.adversary.trap_weights.unmixing import Doubt

ROWS, RECORDS, PIXELS, NORM = 256, 16, 400, 1.0


def made_up(seed: int = 0, *, noise: float = 0.0) -> tuple[PlantedGradient, Tensor, Tensor, Tensor]:
    """A gradient of clipped records, who is in which row (n, m), and each record's factor (m,) and code (m, D)."""
    generator = torch.Generator().manual_seed(seed)
    active = (torch.rand(ROWS, RECORDS, generator=generator) < 1 / RECORDS).double()
    active[:RECORDS] = torch.eye(RECORDS)
    codes = torch.randn(RECORDS, PIXELS, dtype=torch.float64, generator=generator)
    sign = 1.0 - 2.0 * (torch.arange(RECORDS) % 2)
    factors = sign * NORM / (active.sum(dim=0) * (codes.square().sum(dim=1) + 1)).sqrt()
    rows = active @ (factors[:, None] * codes)
    bias = active @ factors
    rows = rows + noise * torch.randn(rows.shape, dtype=torch.float64, generator=generator)
    bias = bias + noise * torch.randn(ROWS, dtype=torch.float64, generator=generator)
    return PlantedGradient(rows=rows, bias=bias, noise_std=noise), active, factors, codes


def expected(codes: Tensor, active: Tensor, factors: Tensor) -> Expectation:
    sizes = NORM / (codes.square().sum(dim=1) + 1).sqrt()
    energy = (active.sum(dim=0) * factors.square()) @ codes.square() / active.sum()
    return Expectation(
        energy=energy,
        factor_energy=float(active.sum(dim=0) @ factors.square() / active.sum()),
        size_mean=float(sizes.mean()),
        size_variance=float(sizes.var()),
        activity=float(active.mean()),
        expected_records=float(RECORDS),
    )


@pytest.mark.parametrize("seed", range(3))
def test_known_records_are_read_exactly_without_noise(seed: int) -> None:
    gradient, active, factors, codes = made_up(seed)
    measured = read_records(gradient, {}, {}, expected(codes, active, factors))
    assert {tuple(row) for row in measured.members.double().tolist()} == {tuple(c) for c in active.T.tolist()}
    place = [measured.members.double().tolist().index(column) for column in active.T.tolist()]
    torch.testing.assert_close(measured.factors[place], factors, rtol=1e-6, atol=0)
    torch.testing.assert_close(measured.codes[place] / measured.factors[place][:, None], codes, rtol=0, atol=1e-5)
    assert not measured.noise_std.any()
    assert measured.scores.tolist() == sorted(measured.scores.tolist(), reverse=True)


def test_in_noise_records_come_with_the_error_that_is_stated() -> None:
    gradient, active, factors, codes = made_up(noise=2e-3)
    measured = read_records(gradient, {}, {}, expected(codes, active, factors))
    held = measured.members.double().tolist()
    right = [(held.index(column), record) for record, column in enumerate(active.T.tolist()) if column in held]
    assert len(right) >= RECORDS - 2
    for place, record in right:
        error = (measured.codes[place] - factors[record] * codes[record]).square().mean().sqrt()
        assert float(error) == pytest.approx(float(measured.noise_std[place]), rel=0.2)
        assert float(measured.factors[place]) == pytest.approx(float(factors[record]), rel=0.2)


def test_the_memory_saving_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, active, factors, codes = made_up(noise=1e-3)
    whole = read_records(gradient, {}, {}, expected(codes, active, factors))
    monkeypatch.setattr(reading, "_COLUMNS_AT_ONCE", 37)
    parts = read_records(gradient, {}, {}, expected(codes, active, factors))
    assert torch.equal(parts.members, whole.members)
    torch.testing.assert_close(parts.codes, whole.codes)


def test_a_gradient_of_zeros_holds_nothing() -> None:
    gradient, active, factors, codes = made_up()
    silent = PlantedGradient(rows=gradient.rows * 0, bias=gradient.bias * 0, noise_std=0.0)
    measured = read_records(silent, {}, {}, expected(codes, active, factors))
    assert measured.codes.shape == (0, PIXELS)
    assert measured.members.shape == (0, ROWS)


def test_without_noise_every_coefficient_counts_alike_and_nothing_is_doubted() -> None:
    energy = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(discriminating_metric(energy, 0.0) * energy, torch.ones(3, dtype=torch.float64))
    _, active, factors, codes = made_up()
    assert doubt(energy, 0.0, 1 / energy, expected(codes, active, factors), rows=9) == Doubt(0.0, 0.0, 0.0)


def test_a_coefficient_far_below_the_noise_hardly_counts() -> None:
    energy = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    loud, faint = discriminating_metric(energy, 1e-2)
    assert float(faint) < 0.02 * float(loud)
    # A coefficient that never varies in public does not count without end.
    assert bool(discriminating_metric(torch.tensor([1.0, 0.0], dtype=torch.float64), 0.0).isfinite().all())


def test_the_spread_of_the_doubt_is_that_of_the_products_of_noise() -> None:
    _, active, factors, codes = made_up()
    expectation = expected(codes, active, factors)
    energy = torch.cat([expectation.energy, torch.tensor([expectation.factor_energy], dtype=torch.float64)])
    noise = 4e-6
    metric = discriminating_metric(energy, noise)
    rows = math.sqrt(noise) * torch.randn(
        400, PIXELS + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    products = (rows * metric) @ rows.T
    apart = products[torch.triu(torch.ones(400, 400), diagonal=1).bool()]
    found = doubt(energy, noise, metric, expectation, rows=ROWS)
    assert float(apart.std()) == pytest.approx(found.spread, rel=0.05)
    # Once the noise's share is taken out, hardly a row of noise looks occupied: fewer than one in rows over records.
    own = products.diagonal() - noise * float(metric.sum())
    assert float((own > found.floor).double().mean()) <= RECORDS / ROWS
    # The scarcer records are, the more it takes to be one.
    rare = doubt(energy, noise, metric, replace(expectation, activity=0.001), rows=ROWS)
    assert rare.penalty > found.penalty > 0
