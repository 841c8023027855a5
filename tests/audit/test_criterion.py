from __future__ import annotations

import math

import pytest

from hbdp_fed.audit.criterion import DEFAULT_CRITERION, SSIM_THRESHOLD, Criterion
from hbdp_fed.errors import SettingError


def test_the_usual_criterion_is_one_threshold() -> None:
    assert Criterion() == DEFAULT_CRITERION
    assert DEFAULT_CRITERION.thresholds == (SSIM_THRESHOLD,)


def test_thresholds_ascend_and_come_once() -> None:
    assert Criterion(0.8, (0.9, 0.6, 0.8)).thresholds == (0.6, 0.8, 0.9)


def test_the_words_tell_the_threshold_and_every_baseline() -> None:
    words = Criterion(0.75, (0.6,)).in_words()
    for part in ("SSIM > 0.75", "mean public image", "every public image", "other patient", "one to one"):
        assert part in words


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 1.5, math.nan, math.inf])
def test_a_threshold_that_nothing_or_everything_exceeds_is_refused(threshold: float) -> None:
    for refused in ({"ssim": threshold}, {"also": (0.5, threshold)}):
        with pytest.raises(SettingError, match=r"adversary\.thresholds"):
            Criterion(**refused)
