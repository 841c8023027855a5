from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch

from hbdp_fed.audit import attack_figures, audit_probe, risk_summary, wilson_interval
from hbdp_fed.audit.criterion import Criterion
from hbdp_fed.audit.proportions import clustered_wilson
from hbdp_fed.audit.risk import AttackFigures
from hbdp_fed.types import Reconstruction


def claim(images: torch.Tensor, **details: float) -> Reconstruction:
    return Reconstruction(images=images, scores=torch.ones(len(images)), details=details)


def audited(reconstruction, originals, public, hospital="hospital-0", round=5):
    return audit_probe(reconstruction, originals, public, hospital=hospital, round=round)


def test_a_record_without_reconstruction_counts_as_failure(images) -> None:
    originals, public = images(4, seed=1), images(9, seed=2)
    figures = attack_figures("imprint", "gradient", [audited(claim(originals[:1]), originals, public)])
    assert (figures.records, figures.reconstructed, figures.success_rate) == (4, 1, 0.25)
    assert figures.ssim_mean == figures.ssim_max == pytest.approx(1.0)
    assert (figures.ssim_median, figures.ssim_min) == (0.0, 0.0)
    assert figures.ncc_median == pytest.approx(1.0)


def test_the_best_the_median_and_the_worst_are_told(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(0))
    rebuilt = (originals + noise * torch.tensor([0.02, 0.1, 0.3]).view(3, 1, 1, 1)).clamp(0, 1)
    outcome = audited(claim(rebuilt), originals, public)
    figures = attack_figures("imprint", "gradient", [outcome])
    assert [figures.ssim_max, figures.ssim_median, figures.ssim_min] == pytest.approx(outcome.ssim.tolist())
    assert [figures.psnr_max, figures.psnr_median] == pytest.approx(outcome.psnr.tolist()[:2])
    assert [figures.ncc_max, figures.ncc_median] == pytest.approx(outcome.ncc.tolist()[:2])
    assert figures.mse_median == pytest.approx(float(outcome.mse[1]))
    assert figures.baselines == {
        "mean_image": pytest.approx(float(outcome.baselines.mean_image.mean())),
        "nearest_public": pytest.approx(float(outcome.baselines.nearest.mean())),
        "another_patient": pytest.approx(float(outcome.baselines.other.mean())),
    }


def test_every_threshold_that_was_asked_for_has_its_success_rate(images) -> None:
    originals, public = images(4, seed=1), images(9, seed=2)
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(0))
    rebuilt = (originals + noise * torch.tensor([0.0, 0.02, 0.1, 1.0]).view(4, 1, 1, 1)).clamp(0, 1)
    criterion = Criterion(0.8, (0.3, 0.999))
    figures = attack_figures("imprint", "gradient", [audited(claim(rebuilt), originals, public)], criterion=criterion)
    assert figures.success_rates == {"0.3": 0.75, "0.8": 0.5, "0.999": 0.25}
    assert figures.success_rate == 0.5
    assert figures.criterion == criterion.in_words()
    # A threshold that a baseline exceeds is not enough.
    outcome = audited(claim(public[:1]), public[:1] * 0.95, public)
    assert attack_figures("imprint", "gradient", [outcome], criterion=criterion).success_rates["0.3"] == 0.0


def test_the_records_of_a_probe_are_not_taken_for_independent(images) -> None:
    public = images(9, seed=2)
    batches = [images(4, seed=seed) for seed in range(3, 9)]
    outcomes = [
        audited(claim(batch if probe < 3 else batch[:0]), batch, public, round=probe)
        for probe, batch in enumerate(batches)
    ]
    # An empty batch is no cluster.
    outcomes.append(audited(claim(batches[0]), batches[0][:0], public, round=9))
    figures = attack_figures("imprint", "gradient", outcomes)
    assert (figures.records, figures.probes, figures.success_rate) == (24, 6, 0.5)
    probe = torch.arange(6).repeat_interleave(4)
    assert figures.success_rate_ci95 == clustered_wilson(probe < 3, probe)
    assert figures.success_rate_ci95[0] < wilson_interval(12, 24)[0]


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
    assert (figures.kind, figures.probes) == ("reconstruction", 0)
    assert figures.clusters == ()
    told = {
        "clusters",
        "name",
        "kind",
        "surface",
        "round",
        "rounds",
        "records",
        "probes",
        "reconstructed",
        "criterion",
        "settings",
    }
    for name in set(AttackFigures.__dataclass_fields__) - told:
        value = getattr(figures, name)
        assert value is None or set(value.values()) == {None}, name


def test_where_nothing_was_rebuilt_the_rate_is_zero_and_similarities_are_null(images) -> None:
    originals = images(4, seed=1)
    figures = attack_figures("imprint", "gradient", [audited(claim(originals[:0]), originals, images(3, seed=2))])
    assert figures.success_rate == 0.0
    assert figures.success_rate_ci95 == wilson_interval(0, 4)
    for name in ("ssim_mean", "ssim_max", "psnr_max", "psnr_median", "mse_median", "ncc_max", "ncc_median"):
        assert getattr(figures, name) is None, name
    assert (figures.ssim_median, figures.ssim_min) == (0.0, 0.0)
    assert figures.baseline_success_rate is not None


def test_the_summary_is_strict_json_with_every_threat_model(images) -> None:
    originals = images(2, seed=1)
    figures = attack_figures(
        "imprint", "gradient", [audited(claim(originals), originals, images(3, seed=2))],
        bound=0.75, bound_prior=0.01, law={"psnr_mean": float("inf"), "quantiles": [0.5]},
    )  # fmt: skip
    summary = risk_summary({"realistic": [figures]}, {"worst_case": 0.25, "relaxed": 0.125}, prior=0.01)
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert list(again) == ["worst_case", "relaxed", "realistic"]
    assert [entry["bound"] for entry in again.values()] == [0.25, 0.125, None]
    assert [entry["prior"] for entry in again.values()] == [0.01, 0.01, None]
    (entry,) = again["realistic"]["attacks"]
    assert entry["psnr_max"] == "inf"
    assert entry["law"] == {"psnr_mean": "inf", "quantiles": [0.5]}
    assert set(entry) == {*AttackFigures.__dataclass_fields__, "above_bound"}
    assert list(entry)[:3] == ["name", "kind", "surface"]
    assert set(entry) >= {
        "name", "surface", "round", "records", "success_rate", "success_rate_ci95", "criterion",
        "ssim_mean", "ssim_max", "psnr_max", "baseline_success_rate",
    }  # fmt: skip


@dataclass(frozen=True)
class Identification:
    name: str
    bound: float | None
    success_rate_ci95: tuple[float, float] | None


@pytest.mark.parametrize(
    ("bound", "interval", "above"),
    [
        (0.2, (0.3, 0.4), True),
        (0.3, (0.3, 0.4), False),
        (0.35, (0.3, 0.4), False),
        (None, (0.3, 0.4), None),
        (0.2, None, None),
    ],
)
def test_an_attack_of_any_kind_is_held_against_its_own_bound(bound, interval, above) -> None:
    entries = [
        Identification("likelihood", bound, interval),
        {"name": "membership", "bound": bound, "success_rate_ci95": interval},
    ]
    summary = risk_summary({"worst_case": entries}, {"worst_case": 0.9})
    assert [entry["above_bound"] for entry in summary["worst_case"]["attacks"]] == [above, above]
    assert [entry["name"] for entry in summary["worst_case"]["attacks"]] == ["likelihood", "membership"]


def test_an_entry_without_bound_or_interval_is_above_none() -> None:
    summary = risk_summary({"relaxed": [{"name": "membership", "advantage": 0.1}]}, {})
    assert summary["relaxed"]["attacks"] == [{"name": "membership", "advantage": 0.1, "above_bound": None}]


def test_an_impossible_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="harmless"):
        risk_summary({"harmless": []}, {})
    with pytest.raises(ValueError, match="a probability, got"):
        risk_summary({}, {"worst_case": 1.5})
    with pytest.raises(ValueError, match="the bound of likelihood must be a probability, got 2"):
        risk_summary({"worst_case": [{"name": "likelihood", "bound": 2.0}]}, {})


def test_what_a_denoiser_gains_is_told_beside_the_attacks_own_figures(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(0))
    before = audited(claim((originals + 0.3 * noise).clamp(0, 1)), originals, public)
    after = audited(claim(originals[:2]), originals, public)
    figures = attack_figures("imprint", "gradient", [before], denoised=[after])
    alone = attack_figures("imprint", "gradient", [before])
    assert alone.denoised is None
    assert replace(figures, denoised=None) == alone
    assert figures.denoised is not None
    assert figures.denoised.success_rate == pytest.approx(2 / 3)
    assert figures.denoised.ssim_median == pytest.approx(1.0)
    # Two records at 1 and one that got nothing, less what they scored before.
    assert figures.denoised.ssim_gain == pytest.approx((2.0 - float(before.ssim.sum())) / 3, abs=1e-5)
