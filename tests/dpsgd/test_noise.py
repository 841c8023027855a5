"""The noise is Gaussian, has the standard deviation asked for, and survives the precision it is kept in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hbdp_fed.dpsgd import gaussian_noise, noise_to_resolution, secure_noise, seeded_noise
from hbdp_fed.seeding import generator

SOURCES = {"seeded": lambda: seeded_noise(generator(0, "noise")), "secure": secure_noise}
# What nobody can repeat fails a test at 1% once in a hundred runs, so it is tested at one in a million.
LEVELS = {"seeded": 0.01, "secure": 1e-6}


@pytest.mark.parametrize("source", SOURCES)
def test_noise_passes_a_normality_and_a_variance_test(source: str) -> None:
    like = {"a": torch.zeros(300, 100), "b": torch.zeros(20_001)}
    noise, level = gaussian_noise(like, std=3e-7, source=SOURCES[source]()), LEVELS[source]
    assert all(value.dtype == torch.float64 and value.shape == like[name].shape for name, value in noise.items())
    pooled = torch.cat([value.flatten() for value in noise.values()]).numpy()
    assert stats.kstest(pooled / 3e-7, "norm").pvalue > level
    # (n - 1) s^2 / sigma^2 is chi-squared: a two-sided test.
    n = len(pooled)
    statistic = (n - 1) * pooled.var(ddof=1) / (3e-7) ** 2
    assert stats.chi2.ppf(level / 2, n - 1) < statistic < stats.chi2.ppf(1 - level / 2, n - 1)
    assert np.corrcoef(pooled[:20_000], pooled[-20_000:])[0, 1] == pytest.approx(0, abs=0.03)


def test_the_same_stream_gives_the_same_noise_and_another_stream_other_noise() -> None:
    like = {"a": torch.zeros(50)}
    first, again, other = (
        gaussian_noise(like, std=1.0, source=seeded_noise(generator(s, "n")))["a"] for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_resolution_is_the_distance_to_the_next_number() -> None:
    # float32 has 24 significant bits: above 1, neighbours are 2^-23 apart.
    assert noise_to_resolution(noise_std=2.0**-23, magnitude=1.5, dtype=torch.float32) == 1.0
    assert noise_to_resolution(noise_std=2.0**-52, magnitude=1.5, dtype=torch.float64) == 1.0
    assert noise_to_resolution(noise_std=0.0, magnitude=0.1, dtype=torch.float32) == 0.0
    assert noise_to_resolution(noise_std=1.0, magnitude=0.0, dtype=torch.float64) == 2.0**52


def test_secure_noise_differs_every_time_and_within_itself() -> None:
    source, other = secure_noise(), secure_noise()
    device = torch.device("cpu")
    draws = [source((50,), device), source((50,), device), other((50,), device)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 3
    assert abs(np.corrcoef(torch.stack(draws).numpy())[np.triu_indices(3, 1)]).max() < 0.7


def test_secure_noise_follows_from_its_key_stream_as_box_and_muller_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a known key the draws can be computed by hand from the cipher's bytes."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    monkeypatch.setattr("hbdp_fed.dpsgd.noise.os.urandom", lambda n: bytes(range(n)))
    stream = Cipher(algorithms.ChaCha20(bytes(range(32)), bytes(range(16))), mode=None).encryptor().update(bytes(96))
    words = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(12)]
    uniforms = [((word >> 11) + 1) / 2**53 for word in words]
    radius = [math.sqrt(-2 * math.log(u)) for u in uniforms[:6]]
    draws = [
        r * wave(2 * math.pi * u) for wave in (math.cos, math.sin) for r, u in zip(radius, uniforms[6:], strict=True)
    ]
    # Three values, each half the sum of four draws: the first, fourth, seventh and tenth, and so on.
    expected = [sum(draws[start::3]) / 2 for start in range(3)]
    assert secure_noise()((3,), torch.device("cpu")).tolist() == pytest.approx(expected, rel=1e-12)
