"""The laws of the linear probe against simulated reconstructions, SciPy's distributions and closed forms."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma

from hbdp_fed.privacy.image_error import LinearProbe, noise_for_mse, noise_for_ncc, noise_for_psnr

Array = npt.NDArray[np.float64]

DRAWS = 10_000
# Noise multiplier, sample rate, steps, pixels: alone, sampled, rarely included, often included.
SETTINGS = [(0.5, 1.0, 1, 16), (1.5, 0.3, 12, 48), (0.4, 0.02, 60, 27), (3.0, 0.5, 40, 64)]


def an_image(pixels: int) -> Array:
    image: Array = np.random.default_rng(pixels).beta(0.6, 1.2, size=pixels)
    return image


def probe_of(image: Array, sigma: float, sample_rate: float, steps: int, *, centred: bool = False) -> LinearProbe:
    return LinearProbe(
        noise_multiplier=sigma,
        sample_rate=sample_rate,
        steps=steps,
        pixels=image.size,
        norm=float(np.linalg.norm(image)),
        centred_norm=float(np.linalg.norm(image - image.mean())) if centred else None,
    )


@cache
def reconstructions(sigma: float, sample_rate: float, steps: int, pixels: int) -> Array:
    """What the adversary averages, step by step: [draws, pixels], nan where no step included the record."""
    generator = np.random.default_rng([steps, pixels])
    image = an_image(pixels)
    sums, included = np.zeros((DRAWS, pixels)), np.zeros((DRAWS, 1))
    for _ in range(steps):
        inside = generator.random((DRAWS, 1)) < sample_rate
        noise = sigma * np.linalg.norm(image) * generator.standard_normal((DRAWS, pixels))
        sums += inside * (image + noise)
        included += inside
    return sums / np.where(included > 0, included, np.nan)


def mean_squared_errors(found: Array, image: Array) -> Array:
    errors: Array = ((found - image) ** 2).mean(axis=1)
    return errors


def correlations(found: Array, image: Array, *, centred: bool) -> Array:
    if centred:
        found, image = found - found.mean(axis=1, keepdims=True), image - image.mean()
    values: Array = (found @ image) / (np.linalg.norm(found, axis=1) * np.linalg.norm(image))
    return values


def holds(values: Array, at_most: Callable[[float], float], probability_included: float) -> None:
    """Reject neither the number of reconstructed records nor the values' law, given P(value <= .) of those."""
    reached = values[~np.isnan(values)]
    assert stats.binomtest(len(reached), len(values), probability_included).pvalue > 0.01
    assert stats.kstest(reached, np.vectorize(at_most)).pvalue > 0.01


@pytest.mark.parametrize("setting", SETTINGS)
def test_simulated_errors_follow_the_law(setting: tuple[float, float, int, int]) -> None:
    image = an_image(setting[-1])
    probe = probe_of(image, *setting[:3])
    included = probe.probability_included
    values = mean_squared_errors(reconstructions(*setting), image)
    holds(values, lambda eta: probe.probability_mse_at_most(eta) / included, included)


@pytest.mark.parametrize("setting", SETTINGS[1:3])
def test_simulated_psnr_follows_the_law(setting: tuple[float, float, int, int]) -> None:
    image = an_image(setting[-1])
    probe = probe_of(image, *setting[:3])
    included = probe.probability_included
    values = -10 * np.log10(mean_squared_errors(reconstructions(*setting), image))
    holds(values, lambda db: 1 - probe.probability_psnr_at_least(db) / included, included)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
def test_simulated_correlations_follow_the_law(setting: tuple[float, float, int, int], centred: bool) -> None:
    image = an_image(setting[-1])
    probe = probe_of(image, *setting[:3], centred=centred)
    included = probe.probability_included
    values = correlations(reconstructions(*setting), image, centred=centred)
    holds(values, lambda c: 1 - probe.probability_ncc_at_least(c) / included, included)


@pytest.mark.parametrize("records", [1, 5, 60])
def test_the_best_of_simulated_records(records: int) -> None:
    generator = np.random.default_rng(records)
    draws, sigma, norm, pixels = 4000, 0.8, 2.0, 12
    probe = LinearProbe(noise_multiplier=sigma, sample_rate=0.02, steps=40, pixels=pixels, norm=norm)
    counts = generator.binomial(40, 0.02, size=(draws, records))
    noise = sigma * norm * generator.standard_normal((draws, records, pixels))
    errors = np.where(counts > 0, (noise**2).mean(axis=2) / np.maximum(counts, 1), np.inf)
    best = errors.min(axis=1)
    psnr = -10 * np.log10(best[np.isfinite(best)])
    assert probe.expected_best_psnr(records) == pytest.approx(psnr.mean(), abs=4 * psnr.std() / math.sqrt(len(psnr)))


@pytest.mark.parametrize("pixels", [2, 784, 150_528])
def test_one_record_that_every_step_includes_has_the_closed_form_of_a_log_gamma_variable(pixels: int) -> None:
    probe = LinearProbe(noise_multiplier=0.3, sample_rate=1.0, steps=9, pixels=pixels, norm=5.0)
    log_mse = digamma(pixels / 2) + math.log(2 * 1.5**2 / (pixels * 9))
    assert probe.expected_best_psnr(1) == pytest.approx(-10 * log_mse / math.log(10), abs=1e-9)


def test_the_least_of_exponential_variables_is_exponential() -> None:
    # With two pixels the MSE is exponential with mean (sigma norm)^2, and the least of n has the mean over n.
    probe = LinearProbe(noise_multiplier=1.0, sample_rate=1.0, steps=1, pixels=2, norm=1.0)
    for records in (1, 10, 10**6, 10**9):
        expected = 10 * (np.euler_gamma + math.log(records)) / math.log(10)
        assert probe.expected_best_psnr(records) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("sample_rate", "steps", "pixels"),
    [(0.02, 53_000, 150_528), (0.5, 1_000_000, 3), (0.3, 1_000_000, 784), (1e-6, 1_000_000, 48), (0.9999, 20_000, 784)],
)
def test_leaving_out_counts_of_inclusions_loses_nothing(sample_rate: float, steps: int, pixels: int) -> None:
    probe = LinearProbe(noise_multiplier=2.0, sample_rate=sample_rate, steps=steps, pixels=pixels, norm=7.0)
    counts = np.arange(1, steps + 1)
    masses = stats.binom.pmf(counts, steps, sample_rate)
    counts, masses = counts[masses > 1e-25], masses[masses > 1e-25]
    for level in (1e-6, 0.1, 0.5, 0.9):
        eta = probe.mse_quantile(level * probe.probability_included)
        direct = masses @ stats.gamma.cdf(eta, a=pixels / 2, scale=2 * 14.0**2 / (pixels * counts))
        # SciPy's own binomial masses are good to 1e-11 or so at a million steps.
        assert probe.probability_mse_at_most(eta) == pytest.approx(direct, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize(("sigma", "c"), [(5.0, 0.5), (0.05, 0.8616), (0.03, 0.943), (10.0, -0.001)])
def test_a_correlation_over_many_steps_agrees_with_a_dense_sum(sigma: float, c: float) -> None:
    sample_rate, steps, pixels = 0.02, 53_000, 150_528
    probe = LinearProbe(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, pixels=pixels, norm=7.0)
    counts = np.arange(800, 1400)
    masses = stats.binom.pmf(counts, steps, sample_rate)
    # Condition on the chi variable here, on a dense grid of its quantiles.
    levels = (np.arange(4000) + 0.5) / 4000
    chi = np.sqrt(stats.chi2.ppf(levels, pixels - 1))
    above = stats.norm.cdf(np.sqrt(counts)[:, None] / sigma - c / math.sqrt(1 - c**2) * chi)
    assert probe.probability_ncc_at_least(c) == pytest.approx(masses @ above.mean(axis=1), abs=1e-5)


@pytest.mark.parametrize("pixels", [3, 10, 784])
@pytest.mark.parametrize("sigma", [0.25, 1.0, 100.0])
@pytest.mark.parametrize("centred_norm", [None, 1.2])
def test_one_step_agrees_with_scipys_noncentral_t(pixels: int, sigma: float, centred_norm: float | None) -> None:
    probe = LinearProbe(
        noise_multiplier=sigma, sample_rate=1.0, steps=1, pixels=pixels, norm=3.0, centred_norm=centred_norm
    )
    freedom = pixels - (1 if centred_norm is None else 2)
    signal = (1.0 if centred_norm is None else 1.2 / 3.0) / sigma
    for c in (-0.95, -0.6, -0.1, 0.0, 0.05, 0.3, 0.7, 0.72, 0.99):
        cotangent = c / math.sqrt(1 - c**2)
        expected = stats.nct.sf(cotangent * math.sqrt(freedom), freedom, signal)
        assert probe.probability_ncc_at_least(c) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("sigma", "sample_rate", "steps", "pixels"),
    [*SETTINGS, (1e-9, 0.0457, 2200, 784), (20.0, 0.01, 53_000, 150_528), (1e4, 1e-6, 10, 3), (0.5, 0.5, 10**6, 784)],
)
def test_quantiles_invert_probabilities(sigma: float, sample_rate: float, steps: int, pixels: int) -> None:
    for centred_norm in (None, 2.0):
        probe = LinearProbe(
            noise_multiplier=sigma,
            sample_rate=sample_rate,
            steps=steps,
            pixels=pixels,
            norm=4.0,
            centred_norm=centred_norm,
        )
        for level in (1e-6, 0.05, 0.5, 0.99):
            probability = level * probe.probability_included
            almost = pytest.approx(probability, abs=1e-10)
            assert probe.probability_mse_at_most(probe.mse_quantile(probability)) == almost
            assert probe.probability_psnr_at_least(probe.psnr_quantile(probability)) == almost
            ncc = probe.ncc_quantile(probability)
            # Next to 1 and -1 an NCC has too few digits left to invert.
            if abs(ncc) < 1 - 1e-9:
                assert probe.probability_ncc_at_least(ncc) == pytest.approx(probability, abs=1e-7)


def test_what_is_never_reached() -> None:
    probe = LinearProbe(noise_multiplier=0.3, sample_rate=0.1, steps=4, pixels=48, norm=4.0)
    included = 1 - 0.9**4
    assert probe.probability_included == pytest.approx(included, rel=1e-14)
    for beyond in (included * (1 + 1e-9), 1.0):
        assert probe.mse_quantile(beyond) == math.inf
        assert probe.psnr_quantile(beyond) == -math.inf
        assert probe.ncc_quantile(beyond) == -math.inf
    assert (probe.mse_quantile(0.0), probe.psnr_quantile(0.0), probe.ncc_quantile(0.0)) == (0.0, math.inf, 1.0)
    assert probe.ncc_quantile(probe.probability_included) == -1.0
    assert probe.probability_mse_at_most(0.0) == probe.probability_psnr_at_least(math.inf) == 0.0
    assert probe.probability_ncc_at_least(1.0) == 0.0
    everything = (
        probe.probability_mse_at_most(math.inf),
        probe.probability_psnr_at_least(-math.inf),
        probe.probability_ncc_at_least(-1.0),
    )
    assert everything == (probe.probability_included,) * 3


def test_without_noise_every_included_record_is_seen_exactly() -> None:
    probe = LinearProbe(noise_multiplier=0.0, sample_rate=0.1, steps=4, pixels=48, norm=4.0)
    included = probe.probability_included
    assert probe.probability_mse_at_most(0.0) == probe.probability_psnr_at_least(math.inf) == included
    assert probe.probability_ncc_at_least(1.0) == included
    assert (probe.mse_quantile(included), probe.psnr_quantile(included)) == (0.0, math.inf)
    assert (probe.ncc_quantile(included), probe.ncc_quantile(1.0)) == (1.0, -math.inf)
    assert probe.mse_quantile(1.0) == probe.expected_best_psnr(3) == math.inf


def test_the_limits_of_little_and_much_noise() -> None:
    def probe(sigma: float) -> LinearProbe:
        return LinearProbe(noise_multiplier=sigma, sample_rate=0.1, steps=40, pixels=48, norm=4.0)

    little, much = probe(1e-9), probe(1e9)
    included = little.probability_included
    assert little.probability_mse_at_most(1e-12) == pytest.approx(included, rel=1e-14)
    assert little.probability_ncc_at_least(1 - 1e-12) == pytest.approx(included, rel=1e-14)
    assert much.probability_mse_at_most(1e3) == 0.0
    assert much.probability_ncc_at_least(0.0) == pytest.approx(included / 2, rel=1e-6)
    # In pure noise the square of an NCC is a beta variable, and its sign is a fair coin.
    pure = stats.beta.sf(0.3**2, 0.5, 47 / 2) / 2
    assert much.probability_ncc_at_least(0.3) == pytest.approx(included * pure, rel=1e-6)
    for sigma in (1e-9, 1e-3, 1e4):
        tenfold = probe(sigma).expected_best_psnr(100) - probe(10 * sigma).expected_best_psnr(100)
        assert tenfold == pytest.approx(20.0, abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    sigma=st.floats(min_value=1e-9, max_value=1e4),
    more=st.floats(min_value=1.0, max_value=3.0),
    sample_rate=st.floats(min_value=1e-6, max_value=1.0),
    steps=st.integers(min_value=1, max_value=60_000),
    pixels=st.integers(min_value=3, max_value=200_000),
    share=st.floats(min_value=0.01, max_value=1.0),
    c=st.floats(min_value=-1.0, max_value=1.0),
    level=st.floats(min_value=0.0, max_value=1.0),
)
def test_more_noise_never_helps(
    sigma: float,
    more: float,
    sample_rate: float,
    steps: int,
    pixels: int,
    share: float,
    c: float,
    level: float,
) -> None:
    def probe(noise: float) -> LinearProbe:
        return LinearProbe(
            noise_multiplier=noise,
            sample_rate=sample_rate,
            steps=steps,
            pixels=pixels,
            norm=5.0,
            centred_norm=5.0 * share,
        )

    here, there = probe(sigma), probe(sigma * more)
    probability = level * here.probability_included
    eta = min(here.mse_quantile(probability), 1e30)
    assert there.probability_mse_at_most(eta) <= here.probability_mse_at_most(eta) + 1e-11
    assert there.mse_quantile(probability) >= here.mse_quantile(probability) * (1 - 1e-9)
    db = here.psnr_quantile(probability)
    assert there.probability_psnr_at_least(db) <= here.probability_psnr_at_least(db) + 1e-11
    for threshold in (c, max(-1.0, here.ncc_quantile(probability))):
        assert there.probability_ncc_at_least(threshold) <= here.probability_ncc_at_least(threshold) + 1e-11
        assert 0.0 <= here.probability_ncc_at_least(threshold) <= here.probability_included
    assert there.expected_best_psnr(100) <= here.expected_best_psnr(100) + 1e-6


def test_the_whole_range_is_computed_quickly_without_warnings() -> None:
    slowest = 0.0
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        for sigma, (sample_rate, steps), pixels, centred_norm in product(
            [1e-9, 1e-3, 1.0, 1e4], [(1e-6, 1), (0.5, 1_000_000), (0.02, 53_000)], [3, 150_528], [None, 0.5]
        ):
            probe = LinearProbe(
                noise_multiplier=sigma,
                sample_rate=sample_rate,
                steps=steps,
                pixels=pixels,
                norm=1.0,
                centred_norm=centred_norm,
            )
            calls = [
                *product([probe.probability_mse_at_most], (1e-300, 0.01, 1e300)),
                *product([probe.probability_psnr_at_least], (-4000.0, 20.0, 4000.0)),
                *product([probe.probability_ncc_at_least], (-0.999, -0.5, 0.1, 0.8, 1 - 1e-16)),
                *product([probe.mse_quantile, probe.psnr_quantile, probe.ncc_quantile], (1e-30, 1e-7, 0.5)),
                *product([probe.expected_best_psnr], (1, 10**6)),
            ]
            for method, argument in calls:
                started = time.perf_counter()
                assert not math.isnan(method(argument))
                slowest = max(slowest, time.perf_counter() - started)
    # Many times what it takes, for a busy machine.
    assert slowest < 2.0


@pytest.mark.parametrize(
    ("sample_rate", "steps", "pixels", "level"),
    [(1.0, 1, 48, 0.01), (0.0457, 2200, 784, 0.01), (0.02, 30, 27, 0.3), (0.01, 53_000, 150_528, 1e-4)],
)
def test_the_noise_for_a_target_meets_it_and_no_less_noise_does(
    sample_rate: float, steps: int, pixels: int, level: float
) -> None:
    norm = 0.4 * math.sqrt(pixels)
    mechanism = {"sample_rate": sample_rate, "steps": steps, "pixels": pixels, "norm": norm}

    def probe(sigma: float, centred_norm: float | None = None) -> LinearProbe:
        return LinearProbe(noise_multiplier=sigma, centred_norm=centred_norm, **mechanism)  # type: ignore[arg-type]

    probability = level * probe(1.0).probability_included
    for eta in (1e-4, 0.05):
        sigma = noise_for_mse(eta=eta, probability=probability, **mechanism)  # type: ignore[arg-type]
        assert probe(sigma).probability_mse_at_most(eta) <= probability
        assert probe(0.99 * sigma).probability_mse_at_most(eta) > probability
        in_db = noise_for_psnr(db=-10 * math.log10(eta), probability=probability, **mechanism)  # type: ignore[arg-type]
        assert in_db == pytest.approx(sigma, rel=1e-9)
        assert probe(in_db).probability_psnr_at_least(-10 * math.log10(eta)) <= probability
    for c, centred_norm in product((0.5, 0.9, 0.9999), (None, 0.6 * norm)):
        sigma = noise_for_ncc(c=c, probability=probability, centred_norm=centred_norm, **mechanism)  # type: ignore[arg-type]
        assert 0 < sigma < math.inf
        assert probe(sigma, centred_norm).probability_ncc_at_least(c) <= probability
        assert probe(0.99 * sigma, centred_norm).probability_ncc_at_least(c) > probability


def test_targets_that_need_no_noise_and_targets_beyond_any() -> None:
    mechanism = {"sample_rate": 0.1, "steps": 4, "pixels": 48, "norm": 4.0}
    included = LinearProbe(noise_multiplier=1.0, **mechanism).probability_included  # type: ignore[arg-type]
    for probability in (included, 1.0):
        assert noise_for_mse(eta=0.01, probability=probability, **mechanism) == 0.0  # type: ignore[arg-type]
        assert noise_for_psnr(db=20.0, probability=probability, **mechanism) == 0.0  # type: ignore[arg-type]
        assert noise_for_ncc(c=0.5, probability=probability, **mechanism) == 0.0  # type: ignore[arg-type]
    # Half of all pure noise correlates positively with an image.
    assert noise_for_ncc(c=0.0, probability=0.49 * included, **mechanism) == math.inf  # type: ignore[arg-type]
    assert noise_for_ncc(c=0.0, probability=0.51 * included, **mechanism) < math.inf  # type: ignore[arg-type]
    assert noise_for_ncc(c=-0.5, probability=0.9 * included, **mechanism) == math.inf  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("noise_multiplier", -1.0), ("noise_multiplier", math.nan), ("noise_multiplier", math.inf), ("sample_rate", 0.0),
     ("sample_rate", 1.1), ("steps", 0), ("pixels", 2), ("norm", 0.0), ("norm", math.inf), ("centred_norm", 0.0),
     ("centred_norm", 4.1), ("centred_norm", math.nan)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(argument: str, value: float) -> None:
    arguments = {
        "noise_multiplier": 1.0,
        "sample_rate": 0.1,
        "steps": 10,
        "pixels": 9,
        "norm": 4.0,
        "centred_norm": 2.0,
    }
    with pytest.raises(ValueError, match=f"^{argument} must"):
        LinearProbe(**{**arguments, argument: value})  # type: ignore[arg-type]


def test_two_pixels_are_enough_uncentred_and_one_is_not() -> None:
    arguments = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10, "norm": 1.0}
    assert 0 < LinearProbe(pixels=2, **arguments).probability_ncc_at_least(0.5) < 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pixels must be at least 2"):
        LinearProbe(pixels=1, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "argument", "values"),
    [
        ("probability_mse_at_most", "eta", (-1.0, math.nan)),
        ("probability_psnr_at_least", "db", (math.nan,)),
        ("probability_ncc_at_least", "c", (-1.1, 1.1, math.nan)),
        ("mse_quantile", "probability", (-0.1, 1.1, math.nan)),
        ("psnr_quantile", "probability", (-0.1, 1.1, math.nan)),
        ("ncc_quantile", "probability", (-0.1, 1.1, math.nan)),
        ("expected_best_psnr", "records", (0, -1)),
    ],
)
def test_a_threshold_out_of_range_is_named(method: str, argument: str, values: tuple[float, ...]) -> None:
    probe = LinearProbe(noise_multiplier=1.0, sample_rate=0.1, steps=10, pixels=9, norm=4.0)
    for value in values:
        with pytest.raises(ValueError, match=f"^{argument} must"):
            getattr(probe, method)(value)


@pytest.mark.parametrize(
    ("function", "argument", "threshold", "beyond"),
    [
        (noise_for_mse, "eta", 0.01, (0.0, -1.0, math.inf, math.nan)),
        (noise_for_psnr, "db", 20.0, (math.inf, -math.inf, math.nan)),
        (noise_for_ncc, "c", 0.5, (-1.0, 1.0, math.nan)),
    ],
)
def test_a_target_out_of_range_is_named(
    function: Callable[..., float], argument: str, threshold: float, beyond: tuple[float, ...]
) -> None:
    arguments = {argument: threshold, "probability": 0.01, "sample_rate": 0.1, "steps": 10, "pixels": 9, "norm": 4.0}
    wrong = [(argument, value) for value in beyond]
    wrong += [("probability", 0.0), ("probability", 1.1), ("probability", math.nan), ("steps", 0), ("pixels", 1)]
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"^{name} must"):
            function(**{**arguments, name: value})
