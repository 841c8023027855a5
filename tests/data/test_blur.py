"""Gaussian blur against SciPy's filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from hbdp_fed.data.blur import gaussian_blur


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_agrees_with_scipy(sigma: float) -> None:
    images = torch.rand((3, 2, 20, 17), generator=torch.Generator().manual_seed(0))
    expected = np.stack([[gaussian_filter(c, sigma, mode="nearest") for c in image] for image in images.numpy()])
    # MONAI integrates the Gaussian over each pixel and SciPy samples it, hence the tolerance.
    assert gaussian_blur(images, sigma).numpy() == pytest.approx(expected, abs=0.02)


def test_keeps_constant_images_constant_up_to_the_border() -> None:
    images = torch.full((2, 1, 9, 9), 0.7)
    assert torch.allclose(gaussian_blur(images, 1.5), images, atol=1e-4)


def test_treats_images_and_channels_separately() -> None:
    images = torch.rand((3, 2, 16, 16), generator=torch.Generator().manual_seed(0))
    alone = gaussian_blur(images[1:2, 1:2], 1.0)
    assert torch.allclose(gaussian_blur(images, 1.0)[1:2, 1:2], alone, atol=1e-6)


def test_zero_sigma_returns_the_images_themselves() -> None:
    images = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert gaussian_blur(images, 0.0) is images


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_refuses_impossible_widths(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        gaussian_blur(torch.zeros(1, 1, 8, 8), sigma)
