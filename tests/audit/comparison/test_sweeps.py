"""Two sweeps, budget by budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hbdp_fed.audit.comparison import Sided, compare_sweeps


def budget(eps: float | str, values: Sequence[float | None], *, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    return {
        "eps": eps, "seeds": list(seeds), "noise_multiplier": [0.5, 0.6],
        "utility": {"mcc": {"values": list(values)}},
        "risk": {"worst_case": {"bound": 0.2, "attacks": []}, "realistic": {"bound": None, "attacks": []}},
    }  # fmt: skip


def sweep(groups: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]], **more: Any) -> dict[str, Any]:
    return {
        "name": "a", "task": "binary", "dataset": "phantom", "settings": ["data=phantom"], "units": {},
        "groups": [{"values": values, "budgets": budgets} for values, budgets in groups], **more,
    }  # fmt: skip


def test_budgets_meet_under_equal_values_of_the_other_axes() -> None:
    first = sweep(
        [({"clients": 5}, [budget(1.0, [0.5]), budget("inf", [0.6])]), ({"clients": 8}, [budget(1.0, [0.4])])]
    )
    second = sweep([({"clients": 8}, [budget(1, [0.5]), budget(8.0, [0.6])])], dataset="ham10000", settings=[])
    found = compare_sweeps(("a", "b"), first, second)
    assert [(pair.eps, pair.values) for pair in found.budgets] == [(1.0, {"clients": 8})]
    assert found.only_first == ("eps=1, clients=5", "eps=inf, clients=5")
    assert found.only_second == ("eps=8, clients=8",)
    assert found.facts == (Sided("dataset", ("phantom",), ("ham10000",)),)
    assert found.settings == (("data=phantom",), ())
    assert found.budgets[0].bounds == (Sided("worst_case", (0.2,), (0.2,)), Sided("realistic", (None,), (None,)))


def test_differences_of_equal_seeds_are_taken_seed_by_seed() -> None:
    first, second = [0.5, 0.7, 0.9], [0.6, 0.75, 1.0]
    found = compare_sweeps(("a", "b"), sweep([({}, [budget(1.0, first)])]), sweep([({}, [budget(1.0, second)])]))
    (utility,) = found.budgets[0].utility
    gaps = np.subtract(second, first)
    assert utility.difference == pytest.approx(gaps.mean())
    assert utility.difference_sd == pytest.approx(gaps.std(ddof=1))
    assert utility.label == "MCC"


def test_other_seeds_have_a_difference_without_a_deviation() -> None:
    found = compare_sweeps(
        ("a", "b"),
        sweep([({}, [budget(1.0, [0.5, 0.7], seeds=[0, 1])])]),
        sweep([({}, [budget(1.0, [0.6, 0.8], seeds=[0, 2])])]),
    )
    (utility,) = found.budgets[0].utility
    assert utility.difference == pytest.approx(0.1)
    assert utility.difference_sd is None


def test_a_figure_that_a_seed_does_not_have_makes_no_difference() -> None:
    found = compare_sweeps(
        ("a", "b"), sweep([({}, [budget(1.0, [0.5, None])])]), sweep([({}, [budget(1.0, [0.6, 0.8])])])
    )
    (utility,) = found.budgets[0].utility
    assert (utility.first, utility.difference, utility.difference_sd) == ((0.5, None), None, None)
