"""From measured codes back to images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.planted import code as code_module
from hbdp_fed.adversary.planted.code import coefficients_of, fit_code
from hbdp_fed.adversary.planted.decoding import Measured, rebuild, settle_factors
from hbdp_fed.adversary.planted.evidence import Expectation
from hbdp_fed.adversary.prior import fit_prior
from tests.adversary.attacking import ssim
from tests.adversary.conftest import smooth_images

PUBLIC = smooth_images(80, seed=1)
CODE = fit_code(PUBLIC, whitening=0.25)
PRIOR = fit_prior(coefficients_of(PUBLIC), rank=16)


def measured(images: Tensor, *, noise: float = 0.0, seed: int = 0) -> Measured:
    """Codes of clipped records alone in their row, and factors of either sign that are known exactly."""
    seen, count = CODE.encode(images), len(images)
    factors = (1.0 - 2.0 * (torch.arange(count) % 2)) / (seen.square().sum(dim=1) + 1).sqrt()
    generator = torch.Generator().manual_seed(seed)
    blur = noise * torch.randn(seen.shape, dtype=torch.float64, generator=generator)
    return Measured(
        codes=factors[:, None] * seen + blur,
        factors=factors,
        noise_std=torch.full((count,), noise, dtype=torch.float64),
        scores=torch.ones(count, dtype=torch.float64),
        members=torch.eye(count, dtype=torch.bool),
    )


def expectation(*, mean: float, variance: float) -> Expectation:
    return Expectation(
        energy=torch.ones(1),
        factor_energy=1.0,
        size_mean=mean,
        size_variance=variance,
        activity=0.1,
        expected_records=3.0,
    )


@pytest.mark.parametrize("denoise", [True, False])
def test_an_exact_code_gives_the_exact_image_denoised_or_not(denoise: bool) -> None:
    images = smooth_images(6, seed=2)
    torch.testing.assert_close(rebuild(measured(images), CODE, PRIOR, denoise=denoise), images, rtol=0, atol=1e-6)


def test_denoising_helps_in_noise_and_does_nothing_unasked() -> None:
    images = smooth_images(6, seed=2)
    noisy = measured(images, noise=0.05)
    plain, denoised = (rebuild(noisy, CODE, PRIOR, denoise=denoise) for denoise in (False, True))
    coefficients = CODE.centre + noisy.codes / noisy.factors[:, None] / CODE.gains
    torch.testing.assert_close(plain, code_module.images_of(coefficients, CODE.image_shape), rtol=0, atol=1e-6)
    assert float((ssim(denoised, images) - ssim(plain, images)).min()) > 0.03


def test_nothing_measured_gives_no_image() -> None:
    assert rebuild(measured(PUBLIC[:0]), CODE, PRIOR, denoise=True).shape == (0, 1, 28, 28)


def test_a_few_records_at_a_time_give_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = measured(smooth_images(5, seed=2), noise=0.02)
    whole = rebuild(noisy, CODE, PRIOR, denoise=True)
    monkeypatch.setattr(code_module, "_CHUNK_ELEMENTS", 2 * 784)
    assert torch.equal(rebuild(noisy, CODE, PRIOR, denoise=True), whole)


def test_a_factor_without_noise_is_taken_as_it_is() -> None:
    estimates = torch.tensor([0.3, -0.7], dtype=torch.float64)
    settled = settle_factors(estimates, torch.full((2,), torch.inf), torch.ones(2), expectation(mean=9.0, variance=0.1))
    assert torch.equal(settled, estimates)


def test_a_factor_that_noise_drowns_has_the_size_that_is_usual_and_its_own_sign() -> None:
    estimates = torch.tensor([0.3, -0.7], dtype=torch.float64)
    active = torch.tensor([1.0, 4.0], dtype=torch.float64)
    settled = settle_factors(
        estimates, torch.full((2,), 1e-12, dtype=torch.float64), active, expectation(mean=0.5, variance=0.01)
    )
    torch.testing.assert_close(settled, torch.tensor([0.5, -0.25], dtype=torch.float64))


def test_a_factor_in_between_is_the_mean_of_the_product_of_two_gaussians() -> None:
    prior_mean, prior_variance, estimate, variance, rows = 0.5, 0.04, 0.9, 0.02, 4.0
    grid = torch.linspace(-2, 3, 200_001, dtype=torch.float64)
    mean, spread = prior_mean / rows**0.5, prior_variance / rows
    density = torch.exp(-0.5 * (grid - mean) ** 2 / spread - 0.5 * (grid - estimate) ** 2 / variance)
    expected = float((grid * density).sum() / density.sum())
    settled = settle_factors(
        torch.tensor([estimate], dtype=torch.float64),
        torch.tensor([1 / variance], dtype=torch.float64),
        torch.tensor([rows], dtype=torch.float64),
        expectation(mean=prior_mean, variance=prior_variance),
    )
    assert float(settled) == pytest.approx(expected, rel=1e-6)


def test_a_factor_is_never_zero_so_that_it_can_be_divided_by() -> None:
    settled = settle_factors(
        torch.zeros(1, dtype=torch.float64), torch.tensor([torch.inf]), torch.ones(1), expectation(mean=0.5, variance=0)
    )
    assert float(settled) > 0
