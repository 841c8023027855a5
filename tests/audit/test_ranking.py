"""The area under the curve against scikit-learn, and its interval against simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hbdp_fed.audit.ranking import auc_with_interval


def test_the_area_is_that_of_scikit_learn_and_of_counting_pairs() -> None:
    stream = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 6, (50,), generator=stream).double()
    positive = torch.rand(50, generator=stream) < 0.4
    area, _ = auc_with_interval(scores, positive)
    first, second = scores[positive][:, None], scores[~positive][None]
    pairs = (first > second).double() + 0.5 * (first == second).double()
    assert area == pytest.approx(float(pairs.mean()))
    assert area == pytest.approx(roc_auc_score(positive.numpy(), scores.numpy()))


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95])
def test_the_interval_holds_the_area_as_often_as_it_says(area: float) -> None:
    """Of two normal laws at the distance that gives the area, 20 scores of each."""
    distance = math.sqrt(2) * NormalDist().inv_cdf(area)
    rng = np.random.default_rng(2)
    positive = torch.arange(40) >= 20
    held = []
    for _ in range(300):
        scores = torch.from_numpy(rng.normal(size=40)) + distance * positive.double()
        _, (low, high) = auc_with_interval(scores, positive)
        held.append(low <= area <= high)
    assert 0.915 < np.mean(held) < 0.998


def test_certainty_has_an_interval_all_the_same() -> None:
    positive = torch.arange(40) >= 20
    scores = torch.arange(40.0)
    area, (low, high) = auc_with_interval(scores, positive)
    assert (area, high) == (1.0, 1.0)
    assert 0.85 < low < 0.95
    mirrored, (other_low, other_high) = auc_with_interval(-scores, positive)
    assert (mirrored, other_low) == (0.0, 0.0)
    assert other_high == pytest.approx(1 - low, abs=0.01)


def test_an_interval_is_around_its_area_and_shrinks_with_more_scores() -> None:
    widths = []
    for count in (20, 200):
        scores, positive = torch.arange(float(count)), torch.arange(count) % 2 == 0
        area, (low, high) = auc_with_interval(scores, positive)
        assert low < area < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_one_kind_alone_has_no_area() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        auc_with_interval(torch.arange(4.0), torch.ones(4) > 0)
