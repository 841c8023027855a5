"""What may be shared of attacks that ask how many of a hospital's patients have something: no small count by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbdp_fed.report.suppression import HIDDEN, Withheld, few, is_small

_MEASURED = ("success_rate", "success_rate_ci95", "baseline_success_rate", "successes")


def shareable_risk(risk: Mapping[str, Any], *, hidden: bool, smallest: int) -> dict[str, Any]:
    """A run's or a budget's ``risk`` without what would tell a count that is not to be shared.

    Of bits told from counting queries, the more common bit's share times the number of patients is how many have the
    finding, and of a hospital with fewer patients than it is asked about, that number is how many it has. The size of
    the populations that a property is inferred of follows from how many records of the rarer kind a hospital has.

    Args:
        risk: By threat model, its ``attacks``; entries of other kinds stay as they are.
        hidden: Whether some hospital's count of records is not shared.
        smallest: Counts from 1 to just below this are not.
    """
    return {
        model: {**entry, "attacks": [_SHARED.get(attack.get("kind"), _as_it_is)(attack, hidden, smallest)
                                     for attack in entry.get("attacks") or ()]}
        for model, entry in risk.items()
    }  # fmt: skip


def _as_it_is(attack: Mapping[str, Any], hidden: bool, smallest: int) -> dict[str, Any]:
    return dict(attack)


def _queries(attack: Mapping[str, Any], hidden: bool, smallest: int) -> dict[str, Any]:
    records, baseline = attack["records"], attack.get("baseline_success_rate")
    rarer = 0 if baseline is None else round(records * (1 - baseline))
    if not (hidden or is_small(records, smallest) or is_small(rarer, smallest)):
        return dict(attack)
    count: Withheld = few(smallest) if is_small(records, smallest) else HIDDEN
    # The figures of every noise lie near the share of the more common bit, or are known without measuring.
    return {**attack, "records": count, "queries": count, "points": [], **dict.fromkeys(_MEASURED)}


def _property(attack: Mapping[str, Any], hidden: bool, smallest: int) -> dict[str, Any]:
    size = attack.get("population")
    return {**attack, "population": HIDDEN} if hidden or is_small(size, smallest) else dict(attack)


_SHARED = {"queries": _queries, "property": _property}
