from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hbdp_fed.audit import attack_figures, audit_probe
from hbdp_fed.audit.criterion import Criterion
from hbdp_fed.audit.outcomes import ProbeOutcome
from hbdp_fed.types import Reconstruction


def claim(images: Tensor) -> Reconstruction:
    return Reconstruction(images=images, scores=torch.ones(len(images)))


def audited(rebuilt: Tensor, originals: Tensor, public: Tensor, **more) -> ProbeOutcome:
    return audit_probe(claim(rebuilt), originals, public, hospital="hospital-0", round=5, **more)


def nearly(images: Tensor) -> Tensor:
    """Images of an SSIM above 0.8 with these."""
    return (images + 0.02).clamp(0, 1)


def test_a_perfect_reconstruction_of_each_record_is_a_success_in_any_order(images) -> None:
    originals, public = images(6, seed=1), images(30, seed=2)
    outcome = audited(originals.flip(0), originals, public)
    assert outcome.success.tolist() == [True] * 6
    assert outcome.reconstruction.tolist() == [5, 4, 3, 2, 1, 0]
    assert outcome.psnr.tolist() == [math.inf] * 6
    assert outcome.mse.tolist() == [0.0] * 6
    assert outcome.ncc.tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize(("channels", "spatial"), [(1, (28, 28)), (3, (28, 28)), (1, (16, 14, 12))])
def test_grey_colour_and_volumes_are_judged_alike(channels: int, spatial: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    everything = torch.rand(12, channels, *spatial, generator=generator)
    originals, public, controls = everything[:4], everything[4:8], everything[8:]
    # The second reconstruction is a noise of its own, the last record gets none.
    rebuilt = torch.stack([nearly(originals[0]), 1 - originals[1], originals[2]])
    outcome = audited(rebuilt, originals, public, controls=controls)
    assert outcome.success.tolist() == [True, False, True, False]
    assert not outcome.control_success.any()
    error = (rebuilt[0].double() - originals[0].double()).square().mean()
    pixels = torch.stack([rebuilt[0].flatten(), originals[0].flatten()]).double()
    assert float(outcome.mse[0]) == pytest.approx(float(error))
    assert float(outcome.psnr[0]) == pytest.approx(-10 * math.log10(float(error)), abs=1e-4)
    assert float(outcome.ncc[0]) == pytest.approx(float(torch.corrcoef(pixels)[0, 1]))
    without = ~(outcome.reconstruction >= 0)
    for measured in (outcome.ssim, outcome.psnr, outcome.mse, outcome.ncc, outcome.above_baselines):
        assert bool(measured[without].isnan().all())


def test_the_public_mean_image_is_no_success(images) -> None:
    public = images(30, seed=2)
    # Originals near the public mean: the guess is excellent, and shows nothing about any one of them.
    originals = (public.mean(dim=0) + 0.02 * (images(6, seed=1) - 0.5)).clamp(0, 1)
    outcome = audited(public.mean(dim=0).expand(6, -1, -1, -1), originals, public)
    assert float(outcome.ssim.min()) > 0.8
    assert not outcome.success.any()


def test_a_public_image_is_no_success(images) -> None:
    originals, others = images(6, seed=1), images(30, seed=2)
    assert not audited(others[:6], originals, others).success.any()
    assert not audited(images(6, seed=3), originals, others).success.any()


def test_a_public_image_that_is_nearly_the_record_is_no_success(images) -> None:
    originals = images(3, seed=1)
    public = torch.cat([nearly(originals), images(10, seed=2)])
    outcome = audited(public[:3], originals, public)
    assert float(outcome.ssim.min()) > 0.8
    assert not outcome.success.any()
    assert outcome.nearest_public.tolist() == [0, 1, 2]
    assert attack_figures("imprint", "gradient", [outcome]).baseline_success_rate == 1.0


def test_another_patients_image_is_no_success_and_the_same_patients_is(images) -> None:
    originals, public = images(3, seed=1), images(10, seed=2)
    controls = torch.cat([nearly(originals[:1]), images(2, seed=3)])
    strangers = audited(controls[:1], originals, public, controls=controls)
    assert float(strangers.ssim[0]) > 0.8
    assert strangers.success.tolist() == [False] * 3
    assert strangers.baselines.other_index[0] == 3
    same = {"groups": torch.tensor([7, 8, 9]), "control_groups": torch.tensor([7, 5, 6])}
    assert audited(controls[:1], originals, public, controls=controls, **same).success.tolist() == [True, False, False]


def test_a_record_of_the_batch_is_a_baseline_for_the_others_of_it(images) -> None:
    first, public = images(2, seed=1), images(10, seed=2)
    originals = torch.cat([first, nearly(first[:1])])
    # Record 2's image comes back and is close to record 0, which it would pass for.
    rebuilt = originals[2:]
    assert audited(rebuilt, originals[:2], public).success.tolist() == [True, False]
    assert audited(rebuilt, originals, public).success.tolist() == [False, False, True]


def test_controls_that_were_not_in_the_batch_measure_false_alarms(images) -> None:
    originals, others, public = images(6, seed=1), images(6, seed=3), images(30, seed=2)
    assert not audited(originals, originals, public, controls=others).control_success.any()
    # A control that a record of the batch passes for is no alarm, unless it shows the same patient.
    controls = torch.cat([nearly(originals[:1]), others])
    outcome = audited(originals, originals, public, controls=controls)
    assert not outcome.control_success.any()
    groups, control_groups = torch.arange(6), torch.arange(100, 107)
    control_groups[0] = 0
    outcome = audited(originals, originals, public, controls=controls, groups=groups, control_groups=control_groups)
    assert outcome.control_success.tolist() == [True] + [False] * 6


def test_whoever_was_given_no_group_is_nobody_elses_patient(images) -> None:
    originals, public = images(3, seed=1), images(10, seed=2)
    controls = nearly(originals[:2])
    for groups in ({"groups": torch.tensor([0, 3, 4])}, {"control_groups": torch.tensor([0, 1])}, {}):
        outcome = audited(originals, originals, public, controls=controls, **groups)
        assert outcome.baselines.other_index.tolist()[:2] == [3, 4]


def test_a_record_in_several_views_counts_once_by_the_view_that_came_back(images) -> None:
    first, second, public = images(4, seed=1), images(4, seed=5), images(30, seed=2)
    seen = torch.stack([first, second], dim=1).flatten(0, 1)
    # Record 0 comes back in its second view, record 1 in both, record 2 in the first; record 3 does not.
    rebuilt = torch.stack([second[0], first[1], second[1], first[2]])
    outcome = audited(rebuilt, seen, public, controls=images(6, seed=7), views=2)
    assert outcome.success.tolist() == [True, True, True, False]
    assert [outcome.view[0], outcome.view[2]] == [1, 0]
    assert len(outcome.control_success) == 3
    figures = attack_figures("imprint", "gradient", [outcome])
    assert (figures.records, figures.success_rate) == (4, 0.75)
    for name in ("ssim", "psnr", "mse", "ncc", "baseline", "nearest_public", "reconstruction", "above_baselines"):
        assert len(getattr(outcome, name)) == 4


def test_views_of_the_same_patient_are_no_baseline_and_any_view_of_another_one_is(images) -> None:
    originals, public = images(2, seed=1), images(10, seed=2)
    # Two nearly equal views of each of two records.
    seen = torch.stack([originals, nearly(originals)], dim=1).flatten(0, 1)
    assert audited(seen, seen, public, views=2).success.all()
    # A third record whose second view is nearly the first record.
    seen = torch.cat([seen, images(1, seed=3), (originals[:1] - 0.02).clamp(0, 1)])
    rebuilt = seen[5:]
    assert audited(rebuilt, seen[:4], public, views=2).success[0]
    outcome = audited(rebuilt, seen, public, views=2)
    assert outcome.success.tolist() == [False, False, True]
    assert outcome.baselines.other_index[0] == 5
    same = torch.tensor([1, 2, 1])
    assert audited(rebuilt, seen, public, views=2, groups=same).baselines.other_index[0] != 5


def test_at_a_lower_threshold_a_record_counts_by_a_view_that_beats_its_baselines(images) -> None:
    originals, public = images(2, seed=1), images(10, seed=2)
    # The first view comes back as a public image that is close to it, the second one in noise.
    noise = 0.1 * torch.randn(originals[1:].shape, generator=torch.Generator().manual_seed(0))
    rebuilt = torch.cat([nearly(originals[:1]), (originals[1:] + noise).clamp(0, 1)])
    outcome = audited(
        rebuilt, originals, torch.cat([public, rebuilt[:1]]), views=2, criterion=Criterion(0.99, (0.2, 0.9))
    )
    assert float(outcome.ssim[0]) > 0.9
    assert 0.2 < float(outcome.above_baselines[0]) < 0.9
    figures = attack_figures("imprint", "gradient", [outcome], criterion=Criterion(0.99, (0.2, 0.9)))
    assert figures.success_rates == {"0.2": 1.0, "0.9": 0.0, "0.99": 0.0}


def test_the_criterion_decides(images) -> None:
    originals, public = images(3, seed=1), images(10, seed=2)
    noise = 0.1 * torch.randn(originals.shape, generator=torch.Generator().manual_seed(0))
    rebuilt = (originals + noise).clamp(0, 1)
    ssim = audited(rebuilt, originals, public).ssim
    low, high = float(ssim.min()) - 0.01, float(ssim.max()) + 0.01
    assert audited(rebuilt, originals, public, criterion=Criterion(low)).success.all()
    assert not audited(rebuilt, originals, public, criterion=Criterion(high)).success.any()


def test_what_does_not_fit_together_is_refused(images) -> None:
    originals, public = images(4, seed=1), images(10, seed=2)
    with pytest.raises(ValueError, match="4 images are no whole number of records in 3 views"):
        audited(originals, originals, public, views=3)
    with pytest.raises(ValueError, match="4 records and 0 controls have 3 and 0 groups"):
        audited(originals, originals, public, groups=torch.arange(3))
