"""Small counts are not shown, and cannot be computed from what is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbdp_fed.report.suppression import HIDDEN, Withheld, few, is_withheld, protect, protect_columns

SMALLEST = 4
COUNTS = st.lists(st.integers(0, 14), min_size=1, max_size=5)


def consistent(shown: list[int | Withheld | None], total: int) -> list[tuple[int, ...]]:
    """Everything that the counts may be, for a reader who knows their total, the words and the rule."""
    # Where the small ones are named, what else is withheld is not small; otherwise it may be anything.
    least = SMALLEST if few(SMALLEST) in shown else 0
    possible = [
        [kept] if isinstance(kept, int) else range(1, SMALLEST) if kept == few(SMALLEST) else range(least, total + 1)
        for kept in shown
    ]
    return [counts for counts in itertools.product(*possible) if sum(counts) == total]


@given(COUNTS)
@settings(max_examples=150, deadline=None)
def test_no_total_tells_a_small_count(counts: list[int]) -> None:
    total = sum(counts)
    shown = protect(counts, smallest=SMALLEST)
    small = [place for place, count in enumerate(counts) if 0 < count < SMALLEST]
    assert not any(isinstance(shown[place], int) for place in small)
    # A total that is small itself is never shown: there is nothing to take the others from.
    if total < SMALLEST:
        return
    found = consistent(shown, total)
    assert tuple(counts) in found
    for place in small:
        assert {one[place] for one in found} >= set(range(1, SMALLEST)), (counts, shown)


@given(COUNTS)
@settings(max_examples=100, deadline=None)
def test_what_is_shown_is_true_and_beside_small_counts_one_or_all_are_withheld(counts: list[int]) -> None:
    shown = protect(counts, smallest=SMALLEST)
    assert all(kept == count for kept, count in zip(shown, counts, strict=True) if isinstance(kept, int))
    hidden = [kept for kept in shown if kept == HIDDEN]
    # One count beside the small ones, or everything.
    assert len(hidden) in (0, 1, len(counts))
    if not any(0 < count < SMALLEST for count in counts):
        assert shown == counts


def test_where_no_total_is_known_only_the_small_ones_go() -> None:
    assert protect([3, 40, 50], total_known=False) == [few(10), 40, 50]
    assert protect([3, 40, 50]) == [few(10), HIDDEN, 50]
    assert str(few(10)) == "fewer than 10"


def test_the_threshold_is_the_reader_s_and_one_shows_everything() -> None:
    assert protect([1, 9, 10, 0], smallest=1) == [1, 9, 10, 0]
    assert protect([9, 10, 300], smallest=10) == [few(10), HIDDEN, 300]
    assert protect([9, 10, 300], smallest=9) == [9, 10, 300]


def test_what_nobody_counted_stays_none() -> None:
    assert protect([None, 3, 40, 50]) == [None, few(10), HIDDEN, 50]


@pytest.mark.parametrize("counts", [[1, 10], [9, 9], [2, 12, 0]])
def test_where_no_other_count_is_large_enough_nothing_says_which_are_small(counts: list[int]) -> None:
    assert protect(counts) == [HIDDEN] * len(counts)


def test_columns_are_protected_each_by_itself_and_other_entries_stay() -> None:
    shown = protect_columns([{"name": "a", "n": 3}, {"name": "b", "n": 40}, {"name": "c", "n": 50}], ["n", "m"])
    assert shown == [{"name": "a", "n": few(10)}, {"name": "b", "n": HIDDEN}, {"name": "c", "n": 50}]
    assert [is_withheld(entry, ["n", "m"]) for entry in shown] == [True, True, False]
