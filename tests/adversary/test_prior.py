from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hbdp_fed.adversary.prior import ImagePrior, fit_prior, posterior_mean


def correlated(count: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, 3, dtype=torch.float64, generator=generator) @ mixing + 0.1 * torch.randn(
        count, 20, dtype=torch.float64, generator=generator
    )


def test_the_posterior_mean_is_the_textbook_gaussian_conditional() -> None:
    prior = fit_prior(correlated(40, seed=0), rank=3)
    measured, noise = correlated(5, seed=1), torch.rand(5, 20, dtype=torch.float64) + 0.1
    covariance = prior.factors @ prior.factors.T + prior.residual.diag()
    expected = torch.stack(
        [
            prior.mean + covariance @ torch.linalg.solve(covariance + variance.diag(), row - prior.mean)
            for row, variance in zip(measured, noise, strict=True)
        ]
    )
    torch.testing.assert_close(posterior_mean(prior, measured, noise), expected)


def test_no_noise_changes_nothing_and_endless_noise_leaves_the_public_mean() -> None:
    prior = fit_prior(correlated(40, seed=0), rank=3)
    measured = correlated(4, seed=2)
    torch.testing.assert_close(posterior_mean(prior, measured, torch.zeros_like(measured)), measured)
    guess = posterior_mean(prior, measured, torch.full_like(measured, 1e12))
    torch.testing.assert_close(guess, prior.mean.expand_as(guess))


@given(sigma=st.sampled_from([0.05, 0.3, 1.0, 3.0]), rank=st.integers(0, 8))
def test_denoising_unseen_vectors_lowers_the_error(sigma: float, rank: int) -> None:
    prior, truth = fit_prior(correlated(60, seed=0), rank=rank), correlated(60, seed=3)
    noise = sigma * torch.randn(60, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    estimate = posterior_mean(prior, truth + noise, torch.full_like(truth, sigma**2))
    assert float((estimate - truth).square().mean()) < float(noise.square().mean())


def test_equal_public_images_give_a_finite_prior() -> None:
    prior = fit_prior(torch.ones(8, 20, dtype=torch.float64), rank=64)
    assert isinstance(prior, ImagePrior)
    assert all(bool(torch.isfinite(value).all()) for value in (prior.mean, prior.factors, prior.residual))


def test_too_few_public_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 public images, got 3"):
        fit_prior(torch.zeros(3, 20, dtype=torch.float64), rank=2)
