"""What differs between two sides of plain values."""

from __future__ import annotations

import math

from hbdp_fed.audit.comparison import ABSENT, Sided, differing, flat


def test_leaves_are_named_in_full_and_lists_of_sections_are_opened() -> None:
    tree = {"eps": math.inf, "training": {"rounds": 3, "weights": [1, 4]}, "faults": [{"kind": "slow"}], "profiles": {}}
    assert flat(tree) == {
        "eps": "inf", "training.rounds": 3, "training.weights": [1, 4], "faults[0].kind": "slow", "profiles": {},
    }  # fmt: skip


def test_only_what_differs_is_told_and_what_one_side_lacks_is_absent() -> None:
    first = [{"eps": 1.0, "clients": 5, "old": 1}]
    second = [{"eps": 8.0, "clients": 5, "new": None}]
    assert differing(first, second) == (
        Sided("eps", (1.0,), (8.0,)),
        Sided("old", (1,), (ABSENT,)),
        Sided("new", (ABSENT,), (None,)),
    )


def test_the_same_seeds_on_both_sides_are_no_difference_in_any_order() -> None:
    assert differing([{"seed": 0}, {"seed": 1}], [{"seed": 1}, {"seed": 0}]) == ()
    assert differing([{"seed": 0}, {"seed": 1}], [{"seed": 0}]) == (Sided("seed", (0, 1), (0,)),)


def test_true_is_not_one() -> None:
    assert differing([{"clip": True}], [{"clip": 1}]) == (Sided("clip", (True,), (1,)),)
    assert differing([{"eps": 1}], [{"eps": 1.0}]) == ()
