"""Attacks on two sides: pooled over runs, and whether the intervals overlap."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hbdp_fed.audit.comparison import attack_pairs
from hbdp_fed.audit.proportions import clustered_wilson


def risk(**attack: Any) -> dict[str, Any]:
    entry = {
        "name": "imprint", "surface": "gradient", "records": 40, "success_rate": 0.5, "success_rate_ci95": [0.4, 0.6],
        "criterion": "SSIM > 0.8", "baseline_success_rate": 0.1, "bound": None, **attack,
    }  # fmt: skip
    return {"realistic": {"bound": None, "attacks": [entry]}}


@pytest.mark.parametrize(
    ("other", "overlap"), [([0.6, 0.7], True), ([0.61, 0.7], False), ([0.0, 0.39], False), ([0.45, 0.5], True)]
)
def test_intervals_overlap_where_they_share_a_point(other: list[float], overlap: bool) -> None:
    (pair,) = attack_pairs([risk()], [risk(success_rate_ci95=other)])
    assert pair.overlap is overlap


def test_successes_that_are_counted_differently_are_not_held_against_each_other() -> None:
    (pair,) = attack_pairs([risk()], [risk(criterion="SSIM > 0.6", success_rate_ci95=[0.9, 1.0])])
    assert pair.overlap is None


def test_an_attack_that_one_side_was_not_put_to_stands_alone() -> None:
    pairs = attack_pairs([risk()], [risk(name="trap_weights")])
    assert [(pair.name, pair.first is None, pair.second is None) for pair in pairs] == [
        ("imprint", False, True),
        ("trap_weights", True, False),
    ]


def test_runs_of_a_side_are_pooled_by_their_records_with_all_probes_for_clusters() -> None:
    side = [
        risk(clusters=[[10, 10], [30, 10]]),
        risk(records=60, success_rate=1.0, baseline_success_rate=0.2, clusters=[[60, 60]]),
    ]
    (pair,) = attack_pairs(side, [risk()])
    assert pair.first is not None
    assert (pair.first.records, pair.first.success_rate) == (100, 0.8)
    assert pair.first.baseline_success_rate == pytest.approx((40 * 0.1 + 60 * 0.2) / 100)
    successes = torch.tensor([True] * 10 + [True] * 10 + [False] * 20 + [True] * 60)
    probes = torch.tensor([0] * 10 + [1] * 30 + [2] * 60)
    assert pair.first.success_rate_ci95 == pytest.approx(clustered_wilson(successes, probes))
    assert pair.second is not None
    assert pair.second.success_rate_ci95 == (0.4, 0.6)


def test_several_older_runs_that_do_not_tell_their_probes_apart_have_no_interval() -> None:
    (pair,) = attack_pairs([risk(), risk()], [risk()])
    assert pair.first is not None
    assert (pair.first.success_rate, pair.first.success_rate_ci95, pair.overlap) == (0.5, None, None)


def test_a_side_with_nothing_to_attack_has_no_rate() -> None:
    nothing = risk(records=0, success_rate=None, success_rate_ci95=None)
    for side in ([nothing], [nothing, nothing]):
        (pair,) = attack_pairs(side, [risk()])
        assert pair.first is not None
        assert pair.first.success_rate is None
        assert pair.overlap is None
