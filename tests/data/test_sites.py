"""Scanners: the identity, each figure by hand, and how far a site may move."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hbdp_fed.data.sites import Scanner, apply_scanner, draw_scanner
from hbdp_fed.errors import SettingError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int = 4, channels: int = 1) -> torch.Tensor:
    return torch.rand((count, channels, 16, 16), generator=stream(9))


def test_strength_zero_is_the_identity_bit_for_bit() -> None:
    scanner = draw_scanner(0.0, stream())
    images = random_images()
    assert scanner == Scanner()
    assert torch.equal(apply_scanner(images, scanner, stream()), images)


@pytest.mark.parametrize(
    ("scanner", "value", "expected"),
    [
        (Scanner(gamma=2.0), 0.5, 0.25),
        (Scanner(gain=2.0), 0.6, 0.7),
        (Scanner(offset=0.1), 0.3, 0.4),
        (Scanner(blur=1.0), 0.3, 0.3),
        (Scanner(gamma=0.5, gain=0.5, offset=-0.1), 0.25, 0.4),
        (Scanner(gain=10.0), 0.9, 1.0),
        (Scanner(offset=-0.5), 0.2, 0.0),
    ],
)
def test_each_figure_does_what_it_says_to_a_constant_image(scanner: Scanner, value: float, expected: float) -> None:
    rendered = apply_scanner(torch.full((1, 1, 12, 12), value), scanner, stream())
    assert rendered.numpy() == pytest.approx(expected, abs=1e-4)


def test_noise_has_its_standard_deviation_and_no_bias() -> None:
    rendered = apply_scanner(torch.full((20, 1, 32, 32), 0.5), Scanner(noise=0.05), stream())
    assert float(rendered.std()) == pytest.approx(0.05, rel=0.03)
    assert float(rendered.mean()) == pytest.approx(0.5, abs=0.002)


def test_blur_removes_contrast_between_neighbours() -> None:
    images = random_images()
    rendered = apply_scanner(images, Scanner(blur=1.0), stream())
    assert rendered.diff(dim=-1).abs().mean() < 0.5 * images.diff(dim=-1).abs().mean()


def test_an_image_is_rendered_the_same_whatever_else_is_in_the_batch() -> None:
    images = random_images(channels=3)
    scanner = Scanner(blur=0.7, gamma=1.3, gain=1.2, offset=0.05)
    together = apply_scanner(images, scanner, stream())
    assert torch.allclose(together[2:3], apply_scanner(images[2:3], scanner, stream()), atol=1e-6)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_drawn_scanners_stay_within_their_strength_and_differ(strength: float) -> None:
    scanners = [draw_scanner(strength, stream(seed)) for seed in range(50)]
    assert len(set(scanners)) == 50
    for scanner in scanners:
        assert 0 <= scanner.blur <= strength
        assert abs(math.log(scanner.gamma)) <= 0.5 * strength
        assert abs(math.log(scanner.gain)) <= 0.4 * strength
        assert abs(scanner.offset) <= 0.15 * strength
        assert 0 <= scanner.noise <= 0.06 * strength


def test_strength_moves_a_site_along_its_own_direction() -> None:
    half, full = draw_scanner(0.5, stream(1)), draw_scanner(1.0, stream(1))
    assert full.blur == pytest.approx(2 * half.blur)
    assert full.offset == pytest.approx(2 * half.offset)
    assert math.log(full.gain) == pytest.approx(2 * math.log(half.gain))


def test_half_strength_is_visible_but_mild() -> None:
    images = 0.2 + 0.6 * random_images(count=8)
    changes = [
        float((apply_scanner(images, draw_scanner(0.5, stream(seed)), stream(seed)) - images).square().mean().sqrt())
        for seed in range(20)
    ]
    assert sum(changes) / len(changes) > 0.03
    assert max(changes) < 0.2


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, "mild", True])
def test_a_strength_outside_its_range_is_refused(strength: Any) -> None:
    with pytest.raises(SettingError, match=r"^data\.scanner_shift: must be a number between 0 and 1"):
        draw_scanner(strength, stream())


@pytest.mark.parametrize(
    "values", [{"gain": 0.0}, {"gamma": -1.0}, {"blur": -0.1}, {"noise": -1.0}, {"gain": math.inf}]
)
def test_impossible_scanners_cannot_be_made(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Scanner(**values)
