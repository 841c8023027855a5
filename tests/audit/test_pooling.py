"""Attacks over seeds: every record counts the same, and what theory allows is never lowered."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hbdp_fed.audit import clustered_wilson, wilson_interval
from hbdp_fed.audit.pooling import pooled_risk


def attack(name: str, clusters: list[tuple[int, int]], **more: Any) -> dict[str, Any]:
    records, hits = (sum(column) for column in zip(*clusters, strict=True)) if clusters else (0, 0)
    return {
        "name": name, "kind": "reconstruction", "surface": "gradient", "records": records, "probes": len(clusters),
        "clusters": clusters, "success_rate": hits / records if records else None, "criterion": "any",
        "baseline_success_rate": 0.0, "control_success_rate": 0.0, "bound": None, "ssim_max": 0.5, **more,
    }  # fmt: skip


def risk(*attacks: dict[str, Any], bound: float | None = None) -> dict[str, Any]:
    empty: dict[str, Any] = {"bound": None, "prior": None, "attacks": []}
    return {
        "worst_case": {"bound": bound, "prior": None if bound is None else 0.01, "attacks": []},
        "relaxed": empty,
        "realistic": {**empty, "attacks": list(attacks)},
    }


def test_a_single_run_is_what_it_was() -> None:
    clusters = [(10, 3), (14, 9), (7, 0)]
    (found,) = pooled_risk([risk(attack("imprint", clusters, ssim_max=0.9))])["realistic"]["attacks"]
    assert (found["records"], found["successes"], found["probes"], found["seeds"]) == (31, 12, 3, 1)
    assert found["success_rate"] == 12 / 31
    hits = torch.tensor([k < hit for size, hit in clusters for k in range(size)])
    probe = torch.tensor([place for place, (size, _) in enumerate(clusters) for _ in range(size)])
    assert found["success_rate_ci95"] == pytest.approx(clustered_wilson(hits, probe), abs=1e-12)


def test_records_and_not_runs_count_the_same() -> None:
    runs = [risk(attack("imprint", [(10, 10)])), risk(attack("imprint", [(30, 0)]))]
    (found,) = pooled_risk(runs)["realistic"]["attacks"]
    assert found["success_rate"] == 0.25
    assert found["seeds"] == 2
    # The two probes could not differ more: forty records say less than forty probes would.
    independent = wilson_interval(10, 40)
    assert independent is not None
    assert found["success_rate_ci95"][0] < independent[0] < independent[1] < found["success_rate_ci95"][1]


def test_nothing_found_in_four_hundred_records_is_surely_below_one_per_cent() -> None:
    runs = [risk(attack("imprint", [(35, 0)] * 4)) for _ in range(3)]
    (found,) = pooled_risk(runs)["realistic"]["attacks"]
    assert found["records"] == 420
    assert found["success_rate_ci95"][0] == 0
    assert found["success_rate_ci95"][1] < 0.01


def test_bounds_and_bests_are_the_largest() -> None:
    runs = [
        risk(attack("probe", [(20, 2)], bound=0.2, ssim_max=0.4), bound=0.3),
        risk(attack("probe", [(20, 1)], bound=0.25, ssim_max=0.7), bound=0.2),
    ]
    pooled = pooled_risk(runs)
    assert pooled["worst_case"]["bound"] == 0.3
    (found,) = pooled["realistic"]["attacks"]
    assert (found["bound"], found["ssim_max"], found["above_bound"]) == (0.25, 0.7, False)


def test_an_attack_that_is_surely_above_its_bound_is_marked() -> None:
    (found,) = pooled_risk([risk(attack("probe", [(1, 1)] * 50, bound=0.5))])["realistic"]["attacks"]
    assert found["above_bound"] is True


def test_runs_without_counts_by_cluster_are_taken_for_independent_records() -> None:
    old = attack("imprint", [(40, 10)])
    del old["clusters"]
    (found,) = pooled_risk([risk(old), risk(attack("imprint", [(40, 30)]))])["realistic"]["attacks"]
    assert found["success_rate_ci95"] == wilson_interval(40, 80)


def test_an_attack_that_met_no_record_has_no_rate() -> None:
    (found,) = pooled_risk([risk(attack("imprint", []))])["realistic"]["attacks"]
    assert found["success_rate"] is None
    assert found["success_rate_ci95"] is None
