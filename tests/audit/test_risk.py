from __future__ import annotations

import json
import math

import pytest
import torch
from skimage.metrics import structural_similarity

from hbdp_fed.audit import attack_figures, audit_probe, guess, risk_summary, wilson_interval
from hbdp_fed.audit.risk import AttackFigures
from hbdp_fed.types import Reconstruction


def library_ssim(first: torch.Tensor, second: torch.Tensor) -> float:
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5, "data_range": 1}
    return float(structural_similarity(first.double().numpy(), second.double().numpy(), channel_axis=0, **settings))


def claim(images: torch.Tensor, **details: float) -> Reconstruction:
    return Reconstruction(images=images, scores=torch.ones(len(images)), details=details)


def audited(reconstruction, originals, public, hospital="hospital-0", round=5):
    return audit_probe(reconstruction, originals, public, hospital=hospital, round=round)


def test_a_perfect_reconstruction_of_each_record_is_a_success_in_any_order(images) -> None:
    originals, public = images(6, seed=1), images(30, seed=2)
    outcome = audited(claim(originals.flip(0)), originals, public)
    assert outcome.success.tolist() == [True] * 6
    assert outcome.reconstruction.tolist() == [5, 4, 3, 2, 1, 0]
    assert outcome.psnr.tolist() == [math.inf] * 6


def test_the_public_mean_image_is_no_success(images) -> None:
    public = images(30, seed=2)
    # Originals near the public mean: the guess is excellent, and shows nothing about any one of them.
    originals = (public.mean(dim=0) + 0.02 * (images(6, seed=1) - 0.5)).clamp(0, 1)
    outcome = audited(claim(public.mean(dim=0).expand(6, -1, -1, -1)), originals, public)
    assert float(outcome.ssim.min()) > 0.8
    assert not outcome.success.any()


def test_another_patients_image_is_no_success(images) -> None:
    originals, others = images(6, seed=1), images(30, seed=2)
    assert not audited(claim(others[:6]), originals, others).success.any()
    assert not audited(claim(images(6, seed=3)), originals, others).success.any()


def test_a_public_image_that_is_nearly_the_record_is_no_success(images) -> None:
    originals = images(3, seed=1)
    public = torch.cat([(originals + 0.02).clamp(0, 1), images(10, seed=2)])
    outcome = audited(claim(public[:3]), originals, public)
    assert float(outcome.ssim.min()) > 0.8
    assert not outcome.success.any()
    assert outcome.nearest_public.tolist() == [0, 1, 2]
    assert attack_figures("imprint", "gradient", [outcome]).baseline_success_rate == 1.0


def test_baselines_are_the_mean_and_the_nearest_public_image(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    found = guess(originals, public)
    mean_image = public.mean(dim=0)
    for record, original in enumerate(originals):
        scores = [library_ssim(image, original) for image in public]
        assert float(found.nearest[record]) == pytest.approx(max(scores), abs=2e-5)
        assert int(found.nearest_index[record]) == scores.index(max(scores))
        assert float(found.mean_image[record]) == pytest.approx(library_ssim(mean_image, original), abs=2e-5)
    assert found.best.tolist() == torch.maximum(found.mean_image, found.nearest).tolist()
    with pytest.raises(ValueError, match="at least one public image"):
        guess(originals, public[:0])


def test_controls_that_were_not_in_the_batch_measure_false_alarms(images) -> None:
    originals, others, public = images(6, seed=1), images(6, seed=3), images(30, seed=2)
    outcome = audit_probe(claim(originals), originals, public, hospital="hospital-0", round=1, controls=others)
    figures = attack_figures("imprint", "gradient", [outcome])
    assert (figures.success_rate, figures.control_success_rate) == (1.0, 0.0)
    assert (
        attack_figures("imprint", "gradient", [audited(claim(originals), originals, public)]).control_success_rate
        is None
    )


def test_a_record_in_several_views_counts_once_by_the_view_that_came_back(images) -> None:
    first, second, public = images(4, seed=1), images(4, seed=5), images(30, seed=2)
    seen = torch.stack([first, second], dim=1).flatten(0, 1)
    # Record 0 comes back in its second view, record 1 in both, record 2 in the first; record 3 does not.
    rebuilt = torch.stack([second[0], first[1], second[1], first[2]])
    outcome = audit_probe(claim(rebuilt), seen, public, hospital="h", round=1, controls=images(6, seed=7), views=2)
    assert outcome.success.tolist() == [True, True, True, False]
    assert [outcome.view[0], outcome.view[2]] == [1, 0]
    assert len(outcome.control_success) == 3
    figures = attack_figures("imprint", "gradient", [outcome])
    assert (figures.records, figures.success_rate) == (4, 0.75)
    for name in ("ssim", "psnr", "baseline", "nearest_public", "reconstruction"):
        assert len(getattr(outcome, name)) == 4


def test_a_record_without_reconstruction_counts_as_failure(images) -> None:
    originals, public = images(4, seed=1), images(9, seed=2)
    figures = attack_figures("imprint", "gradient", [audited(claim(originals[:1]), originals, public)])
    assert (figures.records, figures.reconstructed, figures.success_rate) == (4, 1, 0.25)
    assert figures.ssim_mean == pytest.approx(1.0)


def test_figures_pool_records_over_probes_and_hospitals(images) -> None:
    public = images(9, seed=2)
    first, second = images(3, seed=1), images(5, seed=4)
    outcomes = [
        audited(claim(first, share=0.8, bins=8.0), first, public, "hospital-0", 5),
        audited(claim(second[:0], share=0.6, bins=8.0), second, public, "hospital-1", 6),
    ]
    figures = attack_figures("imprint", "gradient", outcomes)
    assert (figures.round, figures.rounds, figures.records) == (None, (5, 6), 8)
    assert figures.success_rate == 3 / 8
    assert figures.share == pytest.approx(0.7)
    assert figures.settings == {"bins": 8.0}
    assert attack_figures("imprint", "gradient", outcomes[:1]).round == 5


@pytest.mark.parametrize("probes", [0, 1])
def test_where_nothing_was_attacked_no_number_is_made_up(images, probes: int) -> None:
    outcomes = [audited(claim(images(2)), images(2)[:0], images(3))] * probes
    figures = attack_figures("imprint", "gradient", outcomes)
    assert figures.records == figures.reconstructed == 0
    for name in ("success_rate", "success_rate_ci95", "ssim_mean", "ssim_max", "psnr_max", "baseline_success_rate"):
        assert getattr(figures, name) is None, name


def test_where_nothing_was_rebuilt_the_rate_is_zero_and_similarities_are_null(images) -> None:
    originals = images(4, seed=1)
    figures = attack_figures("imprint", "gradient", [audited(claim(originals[:0]), originals, images(3, seed=2))])
    assert figures.success_rate == 0.0
    assert figures.success_rate_ci95 == wilson_interval(0, 4)
    assert (figures.ssim_mean, figures.ssim_max, figures.psnr_max) == (None, None, None)
    assert figures.baseline_success_rate is not None


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (37, 64)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    z, p = 1.959963984540054, successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_no_trials_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_the_summary_is_strict_json_with_every_threat_model(images) -> None:
    originals = images(2, seed=1)
    figures = attack_figures("imprint", "gradient", [audited(claim(originals), originals, images(3, seed=2))])
    summary = risk_summary({"realistic": [figures]}, {"worst_case": 0.25, "relaxed": 0.125}, prior=0.01)
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert list(again) == ["worst_case", "relaxed", "realistic"]
    assert [entry["bound"] for entry in again.values()] == [0.25, 0.125, None]
    assert [entry["prior"] for entry in again.values()] == [0.01, 0.01, None]
    (entry,) = again["realistic"]["attacks"]
    assert entry["psnr_max"] == "inf"
    assert set(entry) == set(AttackFigures.__dataclass_fields__)
    assert set(entry) >= {
        "name", "surface", "round", "records", "success_rate", "success_rate_ci95", "criterion",
        "ssim_mean", "ssim_max", "psnr_max", "baseline_success_rate",
    }  # fmt: skip


def test_an_impossible_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="harmless"):
        risk_summary({"harmless": []}, {})
    with pytest.raises(ValueError, match="a probability, got"):
        risk_summary({}, {"worst_case": 1.5})
