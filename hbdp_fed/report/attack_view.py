"""The attacks of a run as its report tells them: beside chance, theory and what they are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN
from hbdp_fed.report.explained import ADVERSARIES, CAPABILITIES, NOISES, SURFACES
from hbdp_fed.report.rendering import spoken

# Percentages have one decimal.
_SHOWN = 0.001


def risk_view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of attacks, bounds and noise."""
    noise = summary["noise_to_resolution"]
    models = [
        {**entry, "name": name, "attacks": [attack_view(attack) for attack in entry["attacks"]]}
        for name, entry in summary["risk"].items()
    ]
    attacks = [attack for model in models for attack in model["attacks"]]
    surfaces = {attack["surface"] for attack in attacks}
    return {
        "models": models,
        "attacks": attacks,
        "criteria": criteria(attacks),
        "membership": [attack for attack in attacks if attack["kind"] == "membership"],
        "populations": [attack for attack in attacks if attack["kind"] == "property"],
        "queries": [attack for attack in attacks if attack["kind"] == "queries"],
        "noises": NOISES,
        "laws": [attack for attack in attacks if attack.get("law")],
        "hospitals": list(zip(summary["privacy"]["hospitals"], noise, strict=True)),
        # Unknown, where there is no noise, is no reason for a warning.
        "coarse": [entry["name"] for entry in noise if entry["effectively_gaussian"] is False],
        "threshold": EFFECTIVELY_GAUSSIAN,
        "adversaries": ADVERSARIES,
        "capabilities": CAPABILITIES,
        "seen": {name: words for name, words in SURFACES.items() if name in surfaces},
    }


def attack_view(attack: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's entry with what a report says besides."""
    kind, interval = attack.get("kind", "reconstruction"), attack["success_rate_ci95"]
    chance = attack["control_success_rate" if kind == "reconstruction" else "baseline_success_rate"]
    bound, optimal = attack.get("bound"), attack.get("optimal")
    # A gap that no decimal shows is none.
    gap = None if bound is None or optimal is None or bound - optimal < _SHOWN / 2 else bound - optimal
    return {
        "bound_prior": None,
        "above_bound": None,
        **attack,
        "kind": kind,
        "unit": attack.get("unit", "record"),
        "words": attack_words(attack),
        "bound": bound,
        "optimal": optimal,
        "chance": chance,
        "leaks": interval is not None and interval[0] > (chance or 0.0),
        "gap": gap,
    }


def attack_words(attack: Mapping[str, Any]) -> str:
    """The attack by name and surface, the usual surface left out."""
    name, surface = spoken(attack["name"]), spoken(attack["surface"])
    return name if surface == "gradient" else f"{name} on the {surface}"


def strongest(attacks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each kind the attack that had the most success, with how many there were."""
    kinds = dict.fromkeys(attack["kind"] for attack in attacks)
    alike = [[attack for attack in attacks if attack["kind"] == kind] for kind in kinds]
    # Of equal ones the first.
    return [{**sorted(some, key=_success, reverse=True)[0], "of": len(some)} for some in alike]


def _success(attack: Mapping[str, Any]) -> float:
    """The success rate; below all others where there was nothing to attack."""
    return -1.0 if attack["success_rate"] is None else float(attack["success_rate"])


def criteria(attacks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each criterion of success once, after the attacks that it is of."""
    # Of a sweep the same attack comes once a budget.
    names: dict[str, dict[str, None]] = {}
    for attack in attacks:
        names.setdefault(attack["criterion"], {})[attack["words"]] = None
    return [(", ".join(words), criterion) for criterion, words in names.items()]
