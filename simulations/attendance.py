"""Who took part, counted from the lines of ``rounds.jsonl``: a run that was gone on with has the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.federation.clock import held_up_by, round_seconds
from simulations.attendance_plan import is_corrected, model_size, paces
from simulations.books import Course
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder

LETTERS: Mapping[str, str] = {"ok": "u", "offline": "o", "late": "l", "failed": "f"}
"""A hospital's course through the rounds is written as a word: used, offline, late, failed, and ``.`` not asked."""

_NOT_ASKED = "."
_GIGABYTE = 1e9


def participation_summary(prepared: Prepared, folder: RunFolder, course: Course) -> dict[str, Any]:
    """The ``participation`` entry: how many answers were expected and came, which could not be used, and who was there.

    An answer that came twice was asked for once, and so was one whose hospital failed to release its shares afterwards;
    one that came too late was expected, one of a hospital that was offline was not.

    Returns:
        ``expected``, ``completed``, ``failed``, ``offline`` and ``late``, counts over all hospitals, training rounds
        and probes; ``failures`` one by one; and for each of ``hospitals`` the same counts, its ``course`` (see
        :data:`LETTERS`), ``simulated_s`` of a training round, ``sent_gb`` in all, and ``eps_spent``.
    """
    lines = folder.round_lines()
    failed = [
        failure for failure in course.failures if failure["kind"] != "duplicate" and failure.get("phase") != "release"
    ]
    counts = Counter(line["status"] for line in lines)
    return {
        "expected": course.answers + len(failed) + counts["late"],
        "completed": course.answers,
        "failed": len(failed),
        "offline": counts["offline"],
        "late": counts["late"],
        "failures": course.failures,
        "hospitals": _hospitals(prepared, lines),
    }


def _hospitals(prepared: Prepared, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    last = prepared.hyper.rounds + prepared.probes
    steps, parameters, known = prepared.hyper.local_steps, model_size(prepared), paces(prepared)
    corrected = is_corrected(prepared)
    own: dict[str, list[Mapping[str, Any]]] = {plan.name: [] for plan in prepared.plans}
    for line in lines:
        own[line["hospital"]].append(line)
    entries = []
    for name, mine in own.items():
        letters = [_NOT_ASKED] * last
        for line in mine:
            # The second of two answers is written down as a failure; the first one counts.
            if line.get("failure") != "duplicate":
                letters[line["round"] - 1] = LETTERS[line["status"]]
        course = "".join(letters)
        entries.append(
            {
                "name": name,
                "used": course.count("u"),
                "offline": course.count("o"),
                "late": course.count("l"),
                "failed": course.count("f"),
                "course": course,
                "simulated_s": known[name].seconds(parameters=parameters, steps=steps, corrected=corrected),
                "sent_gb": sum(line.get("bytes", 0) for line in mine) / _GIGABYTE,
                "eps_spent": mine[-1]["eps_spent"] if mine else 0.0,
            }
        )
    return entries


def clock_summary(prepared: Prepared, folder: RunFolder) -> dict[str, Any]:
    """What the simulated clock says of the run, for the summary's entry ``time``.

    Returns:
        ``simulated_s``, the wall time of all training rounds and probes one after the other, and ``waited_for``: by
        hospital, the share of them that lasted as long as they did because of it.
    """
    rounds: dict[int, dict[str, float]] = {}
    for line in folder.round_lines():
        if line.get("simulated_s") is not None:
            rounds.setdefault(line["round"], {})[line["hospital"]] = line["simulated_s"]
    deadline, last = prepared.config.federation.deadline_s, prepared.hyper.rounds
    total, waited = 0.0, Counter(dict.fromkeys((plan.name for plan in prepared.plans), 0))
    for number, seconds in rounds.items():
        limit = deadline if number <= last else None
        total += round_seconds(seconds, limit)
        waited.update(held_up_by(seconds, limit))
    return {"simulated_s": total, "waited_for": {name: count / len(rounds) for name, count in waited.items()}}
