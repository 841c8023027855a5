"""The parts of the phantom's images against what is known of them in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.data.tissue import LesionStyle, coarse_field, draw_lesions, draw_tissue, fine_field


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "scale"), [(32, 1.0), (32, 2.0), (64, 0.8)])
def test_fine_field_is_standardised_and_correlated_over_its_scale(size: int, scale: float) -> None:
    field = fine_field(300, size, scale=scale, generator=stream())
    sigma = scale * size / 32
    # The correlation below integrates to 4 pi s^2 pixels, so the mean over n pixels has the variance 4 pi s^2 / n.
    assert field.mean().abs() < 5 * math.sqrt(4 * math.pi * sigma**2 / field.numel())
    assert field.std() == pytest.approx(1.0, abs=0.05)
    # A Gaussian of standard deviation s correlates white noise at distance d by exp(-d^2 / (4 s^2)); the kernel
    # integrates over pixels, which widens it a little.
    neighbours = (field[..., 1:] * field[..., :-1]).mean() / field.square().mean()
    assert float(neighbours) == pytest.approx(math.exp(-1 / (4 * sigma**2)), abs=0.04)


def test_fine_field_is_as_strong_at_the_border_as_in_the_middle() -> None:
    field = fine_field(2000, 32, scale=1.0, generator=stream())
    assert field[..., 0, :].std() == pytest.approx(float(field[..., 16, :].std()), rel=0.05)


def test_coarse_field_runs_through_standard_normal_knots() -> None:
    field = coarse_field(3000, 33, cells=4, generator=stream())
    knots = field[:, 0, ::8, ::8]
    assert knots.mean().abs() < 0.02
    assert knots.std() == pytest.approx(1.0, abs=0.02)


def test_a_lesion_without_roughness_is_a_disc() -> None:
    style = LesionStyle(radius=(4.0, 4.0), contrast=(0.2, 0.2), roughness=0.0, texture=0.0)
    added, outlines = draw_lesions(200, 64, style, stream())
    # Length 32 over 64 pixels: four pixels a unit of area.
    areas = outlines.flatten(1).sum(dim=1) / 4
    inside = added.abs().flatten(1).amax(dim=1)
    assert float(areas.double().median()) == pytest.approx(math.pi * 16, rel=0.02)
    assert inside.min() > 0.199
    assert inside.max() <= 0.2


def test_lesions_are_brighter_or_darker_equally_often() -> None:
    added, _ = draw_lesions(2000, 32, LesionStyle(texture=0.0), stream())
    brighter = (added.flatten(1).sum(dim=1) > 0).double().mean()
    assert float(brighter) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))


def test_tissue_follows_from_the_generator_alone() -> None:
    assert torch.equal(draw_tissue(5, 32, stream(3)), draw_tissue(5, 32, stream(3)))
    assert not torch.equal(draw_tissue(5, 32, stream(3)), draw_tissue(5, 32, stream(4)))
