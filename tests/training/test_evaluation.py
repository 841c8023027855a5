"""Utility by hand, and a threshold that is chosen without looking at the test set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hbdp_fed.errors import SettingError
from hbdp_fed.training import best_threshold, predict, resolve_device, utility


def test_utility_agrees_with_the_confusion_matrix() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    scores = np.array([0.1, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9, 0.2])
    tp, tn, fp, fn = 3, 3, 1, 1
    mcc = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    pairs = [(p > n) for p in scores[labels == 1] for n in scores[labels == 0]]
    found = utility(labels, scores, threshold=0.5)
    assert found.mcc == pytest.approx(mcc)
    assert found.accuracy == pytest.approx(6 / 8)
    assert found.auroc == pytest.approx(np.mean(pairs))


def test_the_threshold_maximises_mcc_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.clip(labels * 0.3 + rng.normal(0.4, 0.2, 200), 0, 1)
    chosen = best_threshold(labels, scores)
    best = max(utility(labels, scores, threshold=t).mcc or -1 for t in np.linspace(0, 1, 2001))
    assert utility(labels, scores, threshold=chosen).mcc == pytest.approx(best, abs=1e-12)
    assert chosen not in scores


def test_a_model_that_says_the_same_of_everybody_has_a_threshold_too() -> None:
    labels, scores = np.array([0, 1, 1]), np.full(3, 0.25)
    found = utility(labels, scores, threshold=best_threshold(labels, scores))
    assert (found.mcc, found.auroc) == (0.0, 0.5)


def test_one_class_has_no_mcc_and_no_auroc() -> None:
    labels, scores = np.ones(4, dtype=np.int64), np.array([0.2, 0.6, 0.7, 0.9])
    found = utility(labels, scores, threshold=best_threshold(labels, scores))
    assert (found.mcc, found.auroc, found.accuracy) == (None, None, 0.75)
    assert utility(labels[:0], scores[:0], threshold=0.5).accuracy is None


def test_predictions_are_class_ones_probability_in_order() -> None:
    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logit = images.flatten(1).mean(dim=1)
            return torch.stack([torch.zeros_like(logit), logit], dim=1)

    images = torch.linspace(-3, 3, 11).view(-1, 1, 1, 1)
    found = predict(Fixed(), images, device=torch.device("cpu"), batch_size=4)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-images.flatten().double().numpy())), rtol=1e-12)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SettingError, match="device: 'tpu' is not known; choose one of: auto, cpu, cuda"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match="no CUDA device"):
            resolve_device("cuda")
