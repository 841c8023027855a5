"""What people read about patients whom several hospitals know, in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hbdp_fed.audit.numbers import show_count, show_number, show_percent
from hbdp_fed.audit.wording import plural

SAME_RECORDS, ONE_RECORD_EACH, WHOLE_PATIENTS = "same_records", "one_record_each", "whole_patients"
"""What is composed: a record that several hospitals hold, a person with a record at each of them, or, where the budget
is a patient's, a patient with whatever each of them holds."""

WHOEVER = (SAME_RECORDS, WHOLE_PATIENTS)
"""Where the composition is the guarantee of the budget's own unit."""


def overlap_words(privacy: Mapping[str, Any]) -> str:
    """Who is known to several hospitals, and what is left of the guarantee; empty where nobody is.

    Args:
        privacy: The summary's entry, or one that may be shared.
    """
    found = privacy.get("overlap")
    if not found:
        return ""
    word = found["unit"]
    if isinstance(found["patients"], int):
        who = f"{show_count(found['patients'])} of {show_count(found['of'])} {plural(word, found['of'])} "
        who += f"({show_percent(found['share'])}) {'is' if found['patients'] == 1 else 'are'}"
    else:
        who = f"Some {plural(word)} ({found['patients']}) are"
    names = " and ".join(found["hospitals"])
    rdp, tight = (_told(found[name], show_number) for name in ("eps_rdp", "eps_tight"))
    bound = _told(found["worst_case_bound"], show_percent)
    figures = f"epsilon {rdp} by RDP, in truth at most {tight}, and a bound of {bound} in the worst case"
    if found["composed"] in WHOEVER:
        whole = found["composed"] == WHOLE_PATIENTS
        held = "each with records of theirs" if whole else "which all hold their records"
        return (
            f"{who} known to several hospitals, {held}. What these hospitals release composes: "
            f"for such a {word if whole else 'record'} {figures} (the weakest: {names})."
        )
    return (
        f"{who} known to several hospitals. Each record lies at one of them and keeps its guarantee; for somebody with "
        f"one record at each, what they release composes: {figures} (the weakest: {names}). Several records at one "
        "hospital leave less."
    )


def _told(value: Any, show: Callable[[Any], str]) -> str:
    """A figure as it is written, or the words that stand where it is not shown."""
    return show(value) if isinstance(value, int | float | str) else str(value)
