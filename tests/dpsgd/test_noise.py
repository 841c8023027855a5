"""The noise is Gaussian, has the standard deviation asked for, and survives the precision it is kept in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from hbdp_fed.dpsgd import gaussian_noise, noise_to_resolution
from hbdp_fed.seeding import generator


def test_noise_passes_a_normality_and_a_variance_test() -> None:
    like = {"a": torch.zeros(300, 100), "b": torch.zeros(20_000)}
    noise = gaussian_noise(like, std=3e-7, generator=generator(0, "noise"))
    pooled = torch.cat([value.flatten() for value in noise.values()]).numpy()
    assert stats.kstest(pooled / 3e-7, "norm").pvalue > 0.01
    # (n - 1) s^2 / sigma^2 is chi-squared: a two-sided test at 1%.
    n = len(pooled)
    statistic = (n - 1) * pooled.var(ddof=1) / (3e-7) ** 2
    assert stats.chi2.ppf(0.005, n - 1) < statistic < stats.chi2.ppf(0.995, n - 1)
    assert np.corrcoef(pooled[:20_000], pooled[-20_000:])[0, 1] == pytest.approx(0, abs=0.03)


def test_the_same_stream_gives_the_same_noise_and_another_stream_other_noise() -> None:
    like = {"a": torch.zeros(50)}
    first, again, other = (gaussian_noise(like, std=1.0, generator=generator(s, "n"))["a"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_resolution_is_the_distance_to_the_next_number() -> None:
    # float32 has 24 significant bits: above 1, neighbours are 2^-23 apart.
    assert noise_to_resolution(noise_std=2.0**-23, magnitude=1.5, dtype=np.float32) == 1.0
    assert noise_to_resolution(noise_std=2.0**-52, magnitude=1.5, dtype=np.float64) == 1.0
    assert noise_to_resolution(noise_std=0.0, magnitude=0.1, dtype=np.float32) == 0.0
    assert noise_to_resolution(noise_std=1.0, magnitude=0.0, dtype=np.float64) == 2.0**52
