from __future__ import annotations

import json
import math
import statistics

import pytest
import torch
from torch import Tensor

from hbdp_fed.audit.probe_law import LawFigures, law_figures
from hbdp_fed.privacy.image_error import LinearProbe
from hbdp_fed.strict_json import dumps

SHAPE = (1, 8, 9)
PIXELS = math.prod(SHAPE)


def drawn(count: int, *, seed: int = 0) -> Tensor:
    """float32 (count, *SHAPE), some bright and some dark."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=generator) * torch.linspace(0.3, 1.0, count)[:, None, None, None]


def probed(originals: Tensor, probes: Tensor, *, sigma: float, seed: int = 1) -> Tensor:
    """Estimates by the law: the records of one probe share the noise vector up to their norms."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(int(probes.max()) + 1, *SHAPE, generator=generator, dtype=torch.float64)
    norms = originals.double().flatten(start_dim=1).norm(dim=1)[:, None, None, None]
    return (originals.double() + sigma * norms * noise[probes]).float()


def figures(
    estimates: Tensor,
    originals: Tensor,
    *,
    sigma: float | Tensor,
    probes: Tensor | None = None,
    clipped: Tensor | None = None,
) -> LawFigures:
    count = len(originals)
    return law_figures(
        estimates,
        originals,
        noise_multiplier=sigma,
        clipped=torch.ones(count, dtype=torch.bool) if clipped is None else clipped,
        probes=torch.arange(count) if probes is None else probes,
    )


def test_estimates_by_the_law_agree_with_it() -> None:
    originals, probes = drawn(600), torch.arange(600) // 2
    found = figures(probed(originals, probes, sigma=0.3), originals, sigma=0.3, probes=probes)
    assert (found.records, found.left_out, found.probes) == (600, 0, 300)
    assert found.mse_ratio is not None
    assert found.mse_ratio == pytest.approx(1.0, abs=3 * math.sqrt(2 / PIXELS / 300) * 1.2)
    assert found.mse_ratio == pytest.approx(found.mse / found.mse_law)
    assert found.mse_ratio_ci95 is not None
    assert found.mse_ratio_ci95[0] < 1.0 < found.mse_ratio_ci95[1]
    assert found.psnr_median == pytest.approx(found.psnr_median_law, abs=0.2)
    assert found.ncc_median == pytest.approx(found.ncc_median_law, abs=0.02)
    assert found.within_central_95 == pytest.approx(0.95, abs=0.03)


def test_the_laws_are_those_of_one_certain_step() -> None:
    originals = drawn(3)
    found = figures(probed(originals, torch.arange(3), sigma=0.2), originals, sigma=0.2)
    flat = originals.double().flatten(start_dim=1)
    laws = [
        LinearProbe(
            noise_multiplier=0.2,
            sample_rate=1,
            steps=1,
            pixels=PIXELS,
            norm=float(image.norm()),
            centred_norm=float((image - image.mean()).norm()),
        )
        for image in flat
    ]
    assert found.mse_law == pytest.approx(float((0.2 * flat.norm(dim=1)).square().mean()))
    assert found.psnr_median_law == pytest.approx(statistics.median(law.psnr_quantile(0.5) for law in laws))
    assert found.ncc_median_law == pytest.approx(statistics.median(law.ncc_quantile(0.5) for law in laws))


def test_measured_figures_are_those_of_other_libraries() -> None:
    originals = drawn(5)
    estimates = probed(originals, torch.arange(5), sigma=0.1)
    found = figures(estimates, originals, sigma=0.1)
    mse = (estimates - originals).square().flatten(start_dim=1).mean(dim=1)
    correlations = [
        float(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1])
        for left, right in zip(estimates, originals, strict=True)
    ]
    assert found.mse == pytest.approx(float(mse.mean()), rel=1e-4)
    assert found.psnr_median == pytest.approx(float(-10 * mse.median().log10()), abs=1e-4)
    assert found.ncc_median == pytest.approx(statistics.median(correlations), abs=1e-5)


def test_records_of_one_probe_are_one_observation() -> None:
    """Twenty records that share a probe's noise say no more about it than one does."""
    one = drawn(1).expand(40, *SHAPE)
    probes = torch.arange(40)
    alone = figures(probed(one, probes, sigma=0.3), one, sigma=0.3, probes=probes)
    many, shared = one[:1].expand(800, *SHAPE), probes.repeat_interleave(20)
    crowded = figures(probed(many, shared, sigma=0.3), many, sigma=0.3, probes=shared)
    assert alone.mse_ratio_ci95 == pytest.approx(crowded.mse_ratio_ci95, rel=1e-6)
    assert (alone.records, crowded.records, crowded.probes) == (40, 800, 40)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    originals, probes = drawn(24), torch.arange(24) // 3
    covered = 0
    for seed in range(200):
        found = figures(probed(originals, probes, sigma=0.5, seed=seed), originals, sigma=0.5, probes=probes)
        assert found.mse_ratio_ci95 is not None
        covered += found.mse_ratio_ci95[0] < 1.0 < found.mse_ratio_ci95[1]
    assert 0.89 <= covered / 200 <= 0.99


def test_too_much_or_too_little_noise_is_seen() -> None:
    originals, probes = drawn(100), torch.arange(100)
    for factor in (0.8, 1.25):
        found = figures(probed(originals, probes, sigma=0.3 * factor), originals, sigma=0.3)
        assert found.mse_ratio == pytest.approx(factor**2, rel=0.05)
        assert found.mse_ratio_ci95 is not None
        assert not found.mse_ratio_ci95[0] <= 1.0 <= found.mse_ratio_ci95[1]
        assert found.within_central_95 is not None
        assert found.within_central_95 < 0.6


def test_hospitals_may_differ_in_their_noise() -> None:
    originals, probes = drawn(200), torch.arange(200)
    sigma = torch.where(probes < 100, 0.1, 0.7)
    quiet, loud = (probed(originals, probes, sigma=value) for value in (0.1, 0.7))
    estimates = torch.where((probes < 100)[:, None, None, None], quiet, loud)
    found = figures(estimates, originals, sigma=sigma)
    assert found.mse_ratio == pytest.approx(1.0, abs=0.1)
    assert found.within_central_95 == pytest.approx(0.95, abs=0.05)


def test_without_noise_everything_is_exact() -> None:
    originals = drawn(4)
    found = figures(originals.clone(), originals, sigma=0.0)
    assert (found.mse, found.mse_law) == (0.0, 0.0)
    assert found.mse_ratio is found.mse_ratio_ci95 is found.within_central_95 is None
    assert found.psnr_median == found.psnr_median_law == math.inf
    assert found.ncc_median == pytest.approx(1.0)
    assert found.ncc_median_law == 1.0
    assert figures(originals.clone(), originals, sigma=0.0, clipped=torch.zeros(4, dtype=torch.bool)) == found
    plain = json.loads(dumps(found))
    assert plain["psnr_median"] == plain["psnr_median_law"] == "inf"
    assert plain["mse_ratio"] is None


def test_the_median_of_an_even_number_may_lie_between_a_number_and_infinity() -> None:
    originals = drawn(2)
    estimates = originals.clone()
    estimates[1] += 0.1
    assert figures(estimates, originals, sigma=0.0).psnr_median == math.inf


def test_records_without_a_law_are_left_out_and_counted() -> None:
    originals, clipped = drawn(6), torch.tensor([True, True, False, True, True, True])
    originals[4] = 0.0
    estimates = probed(originals, torch.arange(6), sigma=0.3)
    found = figures(estimates, originals, sigma=0.3, clipped=clipped)
    kept = torch.tensor([0, 1, 3, 5])
    assert (found.records, found.left_out, found.probes) == (4, 2, 4)
    rest = figures(estimates[kept], originals[kept], sigma=0.3)
    assert found.mse_ratio_ci95 == rest.mse_ratio_ci95
    assert found.ncc_median == rest.ncc_median


def test_an_image_of_one_brightness_has_no_correlation() -> None:
    originals = drawn(3)
    originals[1] = 0.4
    estimates = probed(originals, torch.arange(3), sigma=0.3)
    found = figures(estimates, originals, sigma=0.3)
    others = torch.tensor([0, 2])
    assert found.records == 3
    assert found.ncc_median == figures(estimates[others], originals[others], sigma=0.3).ncc_median
    flat = figures(estimates[1:2], originals[1:2], sigma=0.3)
    assert flat.ncc_median is flat.ncc_median_law is None
    assert flat.psnr_median is not None


def test_one_probe_has_a_ratio_but_no_interval() -> None:
    originals, probes = drawn(3), torch.zeros(3, dtype=torch.int64)
    found = figures(probed(originals, probes, sigma=0.3), originals, sigma=0.3, probes=probes)
    assert found.mse_ratio is not None
    assert found.mse_ratio_ci95 is None


def test_no_records_have_no_figures() -> None:
    found = figures(drawn(0), drawn(0), sigma=0.3)
    assert (found.records, found.left_out, found.probes) == (0, 0, 0)
    assert {name for name, value in vars(found).items() if value is not None} == {"records", "left_out", "probes"}


def test_what_does_not_fit_is_refused() -> None:
    originals = drawn(3)
    with pytest.raises(ValueError, match="are not of originals of"):
        figures(originals[:2], originals, sigma=0.1)
    with pytest.raises(ValueError, match="clipped must have an entry for each of 3"):
        figures(originals, originals, sigma=0.1, clipped=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="probes must have an entry for each of 3"):
        figures(originals, originals, sigma=0.1, probes=torch.arange(4))
    with pytest.raises(ValueError, match="for all records or for none"):
        figures(originals, originals, sigma=torch.tensor([0.1, 0.0, 0.1]))
