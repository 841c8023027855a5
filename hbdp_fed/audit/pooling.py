"""The risk of one setting over several runs that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit.proportions import wilson_interval, wilson_of_clusters

Entry = Mapping[str, Any]
"""An attack's entry in a run's summary."""

_LARGEST = ("bound", "optimal", "ssim_max", "psnr_max")
_MEANS = ("baseline_success_rate", "control_success_rate", "share", "ssim_median", "auc")


def pooled_risk(risks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The ``risk`` entries of several summaries as one.

    Every attacked record counts the same. An interval's clusters are the probes (or hospitals, where candidates are
    named) of all runs; tests of membership, whose threshold each run sets by its own outsiders, count as independent.
    Bounds, and what is a best of several, are the largest of all runs.

    Args:
        risks: Of runs with the same settings but for their seed, at least one.

    Returns:
        By threat model ``bound``, ``prior`` and ``attacks``; an attack, by its name and surface, with the seeds that
        have it, records, successes, probes, rate, interval, and what it is held against (see
        :class:`hbdp_fed.audit.risk.AttackFigures`).
    """
    return {
        model: {
            "bound": _largest([risk[model]["bound"] for risk in risks]),
            "prior": _largest([risk[model].get("prior") for risk in risks]),
            "attacks": [
                pooled_attack([attack for risk in risks for attack in risk[model]["attacks"] if _key(attack) == key])
                for key in dict.fromkeys(_key(attack) for risk in risks for attack in risk[model]["attacks"])
            ],
        }
        for model in THREAT_MODELS
    }


def _key(attack: Entry) -> tuple[str, str]:
    return attack["name"], attack["surface"]


def pooled_attack(entries: Sequence[Entry]) -> dict[str, Any]:
    """One attack's entries of several runs, at least one, as a single one (see :func:`pooled_risk`)."""
    first = entries[0]
    weights = [int(entry["records"]) for entry in entries]
    successes = sum(_successes(entry) for entry in entries)
    records = sum(weights)
    interval, bound = _interval(entries, successes, records), _largest([entry.get("bound") for entry in entries])
    return {
        "name": first["name"],
        "kind": first["kind"],
        "surface": first["surface"],
        "seeds": len(entries),
        "records": records,
        "successes": successes,
        "probes": sum(int(entry["probes"]) for entry in entries) if "probes" in first else None,
        "success_rate": successes / records if records else None,
        "success_rate_ci95": interval,
        "criterion": first["criterion"],
        **{name: _mean([entry.get(name) for entry in entries], weights) for name in _MEANS},
        **{name: _largest([entry.get(name) for entry in entries]) for name in _LARGEST},
        "above_bound": None if bound is None or interval is None else interval[0] > bound,
    }


def _successes(entry: Entry) -> int:
    return 0 if entry["success_rate"] is None else round(entry["success_rate"] * entry["records"])


def _interval(entries: Sequence[Entry], successes: int, records: int) -> tuple[float, float] | None:
    if all(entry.get("clusters") is not None for entry in entries):
        return wilson_of_clusters([(int(size), int(hits)) for entry in entries for size, hits in entry["clusters"]])
    return wilson_interval(successes, records)


def _numbers(values: Sequence[float | str | None]) -> list[float]:
    return [float(value) for value in values if value is not None]


def _largest(values: Sequence[float | str | None]) -> float | None:
    return max(_numbers(values), default=None)


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    """Weighted by records, over the runs that have the figure."""
    known = [(float(value), weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
