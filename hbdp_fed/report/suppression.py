"""Small counts are kept out of what is shared: a hospital's two patients with a rare finding are nobody's business.

The common practice of statistical disclosure control (Hundepool et al., "Statistical Disclosure Control", Wiley 2012,
chapter 4). A count between 1 and the threshold is not shown (primary suppression); where it could be told from a total
by taking the shown counts off, another one is not shown either (complementary suppression). Totals are taken to be
known, shown or not: those of public data sets are. A figure that rests on a count that is not shown is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

SMALLEST_COUNT = 10
"""Counts below this, 0 aside, are not shown, unless somebody asks for another threshold."""


@dataclass(frozen=True)
class Withheld:
    """Stands where a count or a figure is not shown.

    Attributes:
        words: What a reader sees in its place.
    """

    words: str

    def __str__(self) -> str:
        return self.words


HIDDEN = Withheld("not shown")
"""A count that is large enough, and would tell a smaller one."""

TOO_FEW = Withheld("too few records")
"""A figure that rests on a count that is not shown."""

Count = int | Withheld | None
"""A count as it is shown; None where nobody counted."""


def few(smallest: int) -> Withheld:
    """What stands for a count below the threshold."""
    return Withheld(f"fewer than {smallest}")


def is_small(count: Any, smallest: int) -> TypeGuard[int]:
    """Whether a count must not be shown: 0 may be, for it is about nobody."""
    return isinstance(count, int) and 0 < count < smallest


def protect(counts: Sequence[int | None], *, smallest: int = SMALLEST_COUNT, total_known: bool = True) -> list[Count]:
    """Counts that add up to something, as they may be shown side by side.

    With the total and all shown counts, a reader can tell the sum of those that are not shown, and knows of each small
    one that it is at least 1 and below the threshold, of the others that they are at least as large as the threshold.
    Counts are withheld until each small one may have every value from 1 to just below the threshold; where no other
    count is large enough for that, all are withheld, zeros too, without saying which are small.

    Args:
        counts: At least 0; None where nobody counted.
        smallest: The threshold; 1 or less shows everything.
        total_known: Whether a reader may know what they add up to.

    Returns:
        The counts in their order, with a :class:`Withheld` where one is not shown.
    """
    small = [place for place, count in enumerate(counts) if is_small(count, smallest)]
    shown: list[Count] = [few(smallest) if place in small else count for place, count in enumerate(counts)]
    known = sum(count or 0 for count in counts)
    # A total that is small itself is not shown either.
    if not small or not total_known or known < smallest:
        return shown
    of_small = sum(counts[place] or 0 for place in small)
    for count, place in sorted((count, place) for place, count in enumerate(counts) if count and place not in small):
        # The most that a small one can be: every other small one is 1, the withheld one just large enough.
        if of_small + count - (len(small) - 1) - smallest >= smallest - 1:
            shown[place] = HIDDEN
            return shown
    return [None if count is None else HIDDEN for count in counts]


def protect_columns(
    entries: Sequence[Mapping[str, Any]], names: Sequence[str], *, smallest: int = SMALLEST_COUNT
) -> list[dict[str, Any]]:
    """Entries that together are all records, as hospitals are, with their counts as they may be shown.

    Args:
        entries: A mapping each.
        names: Of their counts; one that an entry does not have stays away.
        smallest: The threshold.
    """
    columns = {name: protect([entry.get(name) for entry in entries], smallest=smallest) for name in names}
    return [
        {**entry, **{name: columns[name][place] for name in names if name in entry}}
        for place, entry in enumerate(entries)
    ]


def is_withheld(entry: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether any of an entry's counts is not shown."""
    return any(isinstance(entry.get(name), Withheld) for name in names)
