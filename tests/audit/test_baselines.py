from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from hbdp_fed.audit import baselines, guess, pairwise_ssim


def library_ssim(first: torch.Tensor, second: torch.Tensor) -> float:
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5, "data_range": 1}
    return float(structural_similarity(first.double().numpy(), second.double().numpy(), channel_axis=0, **settings))


def test_a_guess_is_the_mean_or_the_nearest_public_image(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    found = guess(originals, public)
    mean_image = public.mean(dim=0)
    for record, original in enumerate(originals):
        scores = [library_ssim(image, original) for image in public]
        assert float(found.nearest[record]) == pytest.approx(max(scores), abs=2e-5)
        assert int(found.nearest_index[record]) == scores.index(max(scores))
        assert float(found.mean_image[record]) == pytest.approx(library_ssim(mean_image, original), abs=2e-5)
    assert found.guess.tolist() == torch.maximum(found.mean_image, found.nearest).tolist()


def test_the_third_baseline_is_the_nearest_image_of_somebody_else(images, monkeypatch) -> None:
    # Blocks that do not divide the images, and patients across blocks.
    monkeypatch.setattr(baselines, "_BLOCK", 4)
    originals, patients = images(11, seed=1), torch.tensor([3, 1, 3, 1, 9, 9, 9, 3, 0, 1, 9])
    found = guess(originals, images(2, seed=2), patients=patients)
    similarity = pairwise_ssim(originals, originals)
    for record in range(11):
        others = [other for other in range(11) if patients[other] != patients[record]]
        nearest = max(others, key=lambda other: float(similarity[other, record]))
        assert int(found.other_index[record]) == nearest
        assert float(found.other[record]) == pytest.approx(float(similarity[nearest, record]), abs=1e-6)


def test_without_patients_every_image_is_of_another_one(images) -> None:
    originals = images(5, seed=1)
    found = guess(originals, images(2, seed=2))
    assert torch.equal(found.other_index, guess(originals, images(2), patients=torch.arange(5)).other_index)
    assert found.best.tolist() == torch.stack([found.mean_image, found.nearest, found.other]).amax(dim=0).tolist()


def test_where_there_is_nobody_else_public_images_alone_are_the_baseline(images) -> None:
    found = guess(images(2, seed=1), images(4, seed=2), patients=torch.tensor([5, 5]))
    assert all(math.isnan(value) for value in found.other.tolist())
    assert found.other_index.tolist() == [-1, -1]
    assert found.best.tolist() == found.guess.tolist()


def test_no_image_has_no_baseline(images) -> None:
    assert len(guess(images(1)[:0], images(4)).best) == 0


def test_what_is_missing_is_named(images) -> None:
    with pytest.raises(ValueError, match="at least one public image"):
        guess(images(3), images(1)[:0])
    with pytest.raises(ValueError, match="3 images and 2 patients"):
        guess(images(3), images(2), patients=torch.tensor([0, 1]))
