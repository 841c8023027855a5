"""Coordinates of images: there and back, and what they make long and short."""

from __future__ import annotations

import pytest
import torch

from hbdp_fed.adversary.gradient_inversion.coordinates import fit_coordinates
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images

PUBLIC = smooth_images(30, size=12, channels=2, seed=1)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_there_and_back_is_where_one_was(power: float) -> None:
    coordinates = fit_coordinates(PUBLIC, power=power)
    images = torch.rand(5, 2, 12, 12, generator=stream(2), dtype=torch.float64)
    torch.testing.assert_close(coordinates.images(coordinates.values(images)), images)


def test_zero_is_the_mean_image() -> None:
    zero = torch.zeros(1, 288, dtype=torch.float64)
    torch.testing.assert_close(fit_coordinates(PUBLIC, power=0.5).images(zero)[0], PUBLIC.double().mean(dim=0))


def test_a_power_of_zero_is_pixels() -> None:
    coordinates = fit_coordinates(PUBLIC, power=0.0)
    images = PUBLIC[:3].double()
    pixels = (images - PUBLIC.double().mean(dim=0)).flatten(start_dim=1)
    torch.testing.assert_close(coordinates.values(images), pixels)


def test_at_a_power_of_one_public_images_are_white() -> None:
    """Along every direction that they show, public images have a variance of 1."""
    values = fit_coordinates(PUBLIC, power=1.0).values(PUBLIC.double())
    spectrum = torch.linalg.eigvalsh(values @ values.T / (len(PUBLIC) - 1))
    # The mean takes one of 30 directions.
    torch.testing.assert_close(spectrum[1:], torch.ones(29, dtype=torch.float64), rtol=1e-6, atol=0)


def test_public_images_that_are_all_alike_leave_pixels() -> None:
    coordinates = fit_coordinates(PUBLIC[:1].expand(6, -1, -1, -1), power=0.5)
    assert coordinates.directions.shape == (288, 0)
    moved = coordinates.images(torch.ones(1, 288, dtype=torch.float64)) - coordinates.centre
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
