"""Scanners: the identity, each part measured on a picture that shows it alone, and how far a site may move."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hbdp_fed.data.sites import Scanner, apply_scanner, bias_field, draw_scanner
from hbdp_fed.errors import SettingError

IMAGE, VOLUME = (24, 20), (12, 16, 10)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen_by(scanner: Scanner, images: Tensor, *, first: int = 0) -> Tensor:
    """Images as a scanner shows them, each with the grain of its place."""
    return apply_scanner(images, scanner, [stream(number) for number in range(first, first + len(images))])


def rendered(images: Tensor, **figures: Any) -> Tensor:
    return seen_by(Scanner(**figures), images)


def flat(sides: tuple[int, ...], value: float = 0.5, count: int = 2) -> Tensor:
    return torch.full((count, 1, *sides), value)


def shape_of_a_field(seed: int = 3) -> tuple[float, ...]:
    return draw_scanner(1.0, stream(seed)).bias_coefficients


def test_strength_zero_is_the_identity_bit_for_bit() -> None:
    scanner = draw_scanner(0.0, stream())
    for images in (torch.rand(2, 3, *IMAGE), (255 * torch.rand(2, 1, *VOLUME)).to(torch.uint8)):
        assert scanner == Scanner()
        assert scanner.changes_nothing
        assert seen_by(scanner, images) is images


@pytest.mark.parametrize("sides", [IMAGE, VOLUME])
@pytest.mark.parametrize("gamma", [0.6, 1.7])
def test_the_contrast_curve_is_a_power_and_leaves_black_and_white(sides: tuple[int, ...], gamma: float) -> None:
    ramp = torch.linspace(0, 1, math.prod(sides)).view(1, 1, *sides)
    seen = rendered(ramp, gamma=gamma)
    assert seen.numpy() == pytest.approx(ramp.numpy() ** gamma, abs=1e-6)
    assert (float(seen.min()), float(seen.max())) == (0.0, 1.0)


@pytest.mark.parametrize("sides", [IMAGE, VOLUME, (64, 64)])
@pytest.mark.parametrize("strength", [0.05, 0.4])
def test_a_flat_picture_shows_the_bias_field_which_has_its_range(sides: tuple[int, ...], strength: float) -> None:
    seen = rendered(flat(sides), bias_field=strength, bias_coefficients=shape_of_a_field())
    field = seen[0, 0] / 0.5
    assert torch.equal(seen[0], seen[1])
    assert float(field.log().abs().max()) == pytest.approx(strength, rel=1e-4)
    assert field.numpy() == pytest.approx(
        bias_field(Scanner(bias_field=strength, bias_coefficients=shape_of_a_field()), sides).numpy(), rel=1e-5
    )


@pytest.mark.parametrize("sides", [(24, 20), (12, 16, 10)])
def test_the_bias_fields_logarithm_is_a_polynomial_of_the_third_degree(sides: tuple[int, ...]) -> None:
    """Ordinary least squares on plain monomials leave nothing, and of the second degree something."""
    field = bias_field(Scanner(bias_field=0.4, bias_coefficients=shape_of_a_field()), sides).double().log().numpy()
    places = np.meshgrid(*(np.linspace(-1, 1, side) for side in sides), indexing="ij")

    def left_over(degree: int) -> float:
        exponents = [e for e in np.ndindex(*(degree + 1,) * len(sides)) if sum(e) <= degree]
        columns = [np.prod([x**n for x, n in zip(places, e, strict=True)], axis=0).ravel() for e in exponents]
        fitted = np.stack(columns, axis=1)
        return float(np.abs(fitted @ np.linalg.lstsq(fitted, field.ravel())[0] - field.ravel()).max())

    assert left_over(3) < 1e-6
    assert left_over(2) > 1e-3


@pytest.mark.parametrize("resolution", [1.5, 2.4, 5.0])
@pytest.mark.parametrize("sides", [(41, 33), (31, 27, 35)])
def test_a_point_becomes_as_wide_along_every_side_as_is_said_and_loses_no_light(
    sides: tuple[int, ...], resolution: float
) -> None:
    point = torch.zeros(1, 2, *sides)
    middle = tuple(side // 2 for side in sides)
    point[(0, 0, *middle)] = 1.0
    seen = rendered(point, resolution=resolution)
    assert float(seen[0, 0].sum()) == pytest.approx(1.0, abs=1e-3)
    # Only sides of the image are blurred: the other channel stays black.
    assert float(seen[0, 1].max()) == 0.0
    for axis, side in enumerate(sides):
        profile = seen[0, 0].sum(dim=[other for other in range(len(sides)) if other != axis])
        places = torch.arange(side) - middle[axis]
        variance = float((profile * places**2).sum() / profile.sum())
        # A pixel is as wide as a uniform law of one pixel; FWHM is 2.3548 standard deviations of a Gaussian.
        assert math.sqrt(8 * math.log(2) * (variance - 1 / 12)) == pytest.approx(resolution, rel=0.02)


def test_an_edge_rises_from_a_tenth_to_nine_tenths_over_its_stated_width() -> None:
    edge = torch.zeros(1, 1, 8, 64)
    edge[..., 32:] = 1.0
    profile = rendered(edge, resolution=6.0)[0, 0, 4].numpy()
    rise = np.interp(0.9, profile, np.arange(64)) - np.interp(0.1, profile, np.arange(64))
    # From 10% to 90% a Gaussian's integral takes 2 x 1.2816 standard deviations.
    assert rise == pytest.approx(2 * 1.2816 * 6.0 / 2.3548, rel=0.03)


@pytest.mark.parametrize("sides", [(48, 48), (12, 14, 16)])
@pytest.mark.parametrize("noise", [0.01, 0.06])
def test_noise_has_its_standard_deviation_no_bias_and_no_pattern(sides: tuple[int, ...], noise: float) -> None:
    grain = rendered(flat(sides, count=20), noise=noise) - 0.5
    assert float(grain.std()) == pytest.approx(noise, rel=0.03)
    assert float(grain.mean()) == pytest.approx(0.0, abs=0.02 * noise)
    neighbours = torch.corrcoef(torch.stack([grain[..., 1:].flatten(), grain[..., :-1].flatten()]))[0, 1]
    images = torch.corrcoef(grain.flatten(1))
    assert abs(float(neighbours)) < 0.03
    assert float((images - torch.eye(20)).abs().max()) < 0.15


def test_constant_pictures_keep_their_value_up_to_the_border_under_the_point_spread() -> None:
    assert rendered(flat((9, 9), 0.7), resolution=4.0).numpy() == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize("sides", [IMAGE, VOLUME])
def test_an_image_is_rendered_the_same_whatever_else_is_in_the_batch(sides: tuple[int, ...]) -> None:
    images = torch.rand((5, 3, *sides), generator=stream(9))
    scanner = draw_scanner(1.0, stream(4))
    together = seen_by(scanner, images)
    assert torch.allclose(together[2:3], seen_by(scanner, images[2:3], first=2), atol=1e-6)
    assert torch.equal(together, seen_by(scanner, images))


def test_bytes_are_rendered_as_the_floats_they_stand_for_and_left_as_they_are() -> None:
    stored = (255 * torch.rand((3, 3, *IMAGE), generator=stream(9))).to(torch.uint8)
    before, scanner = stored.clone(), draw_scanner(0.7, stream(4))
    seen = seen_by(scanner, stored)
    assert seen.dtype == torch.float32
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert torch.equal(seen, seen_by(scanner, stored.float() / 255))
    assert torch.equal(stored, before)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_drawn_scanners_stay_within_their_strength_and_differ(strength: float) -> None:
    scanners = [draw_scanner(strength, stream(seed)) for seed in range(50)]
    assert len(set(scanners)) == 50
    for scanner in scanners:
        assert 0 <= scanner.resolution <= 2.4 * strength
        assert abs(math.log(scanner.gamma)) <= 0.5 * strength
        assert 0 <= scanner.bias_field <= 0.4 * strength
        assert 0 <= scanner.noise <= 0.06 * strength


def test_strength_moves_a_site_along_its_own_direction() -> None:
    half, full = draw_scanner(0.5, stream(1)), draw_scanner(1.0, stream(1))
    for name in ("resolution", "bias_field", "noise"):
        assert getattr(full, name) == pytest.approx(2 * getattr(half, name))
    assert math.log(full.gamma) == pytest.approx(2 * math.log(half.gamma))
    assert full.bias_coefficients == half.bias_coefficients


def test_half_strength_is_visible_but_mild() -> None:
    images = 0.2 + 0.6 * torch.rand((8, 1, 16, 16), generator=stream(9))
    changes = [
        float((seen_by(draw_scanner(0.5, stream(seed)), images) - images).square().mean().sqrt()) for seed in range(20)
    ]
    assert sum(changes) / len(changes) > 0.03
    assert max(changes) < 0.2


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, "mild", True])
def test_a_strength_outside_its_range_is_refused(strength: Any) -> None:
    with pytest.raises(SettingError, match=r"^data\.scanner_shift: must be a number between 0 and 1"):
        draw_scanner(strength, stream())


@pytest.mark.parametrize(
    "values",
    [
        {"resolution": -0.1},
        {"gamma": 0.0},
        {"noise": -1.0},
        {"bias_field": math.inf},
        {"bias_field": 0.1},
        {"bias_field": 0.1, "bias_coefficients": (0.0,) * 19},
    ],
)
def test_impossible_scanners_cannot_be_made(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Scanner(**values)
