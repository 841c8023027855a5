"""A run in plain words: what the model is worth, what an adversary had of it, and what theory leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.audit.numbers import DASH, show_count, show_percent, show_similarity
from hbdp_fed.audit.wording import interval, metric, unit_word
from hbdp_fed.report.attack_view import strongest
from hbdp_fed.report.budgets import eps_words
from hbdp_fed.report.explained import ACHIEVED
from hbdp_fed.report.rendering import figure, figure_with_interval, or_withheld

# From here on a bound promises nothing that a reader could use.
_NOTHING = 0.999
_CARDS = 2


@dataclass(frozen=True)
class Card:
    """A figure in large letters with a few words.

    Attributes:
        figure: As it is written.
        words: What it is of.
        tone: ``leak``, ``safe`` or empty.
    """

    figure: str
    words: str
    tone: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a reader should know first.

    Attributes:
        tone: ``bad``, ``good`` or empty: what the headline means for the patients' images.
        headline: One sentence.
        lines: A few more.
    """

    tone: str
    headline: str
    lines: tuple[str, ...]


def run_words(summary: Mapping[str, Any], view: Mapping[str, Any]) -> Verdict:
    """The run in plain words.

    Args:
        summary: That may be shared.
        view: What the report says of its attacks and of its utility.
    """
    realistic = next((model for model in view["models"] if model["name"] == "realistic"), None)
    attacks = [attack for attack in (realistic or {}).get("attacks", ()) if attack["success_rate"] is not None]
    images = [attack for attack in attacks if attack["kind"] == "reconstruction"]
    tone, headline = _headline(images, eps_words(summary["privacy"]["eps"]))
    theory = _theory(view["models"], unit_word(summary))
    lines = (_worth(summary, view), *_rebuilt(images), *_inferred(attacks), *theory)
    return Verdict(tone, headline, tuple(line for line in lines if line))


def _headline(attacks: Sequence[Mapping[str, Any]], eps: str) -> tuple[str, str]:
    if not attacks:
        return "", "No realistic attack was run: whether images can be rebuilt was not measured."
    if any(attack["leaks"] for attack in attacks):
        return "bad", f"At epsilon {eps}, a server that may change the model rebuilds images of patients."
    return "good", f"At epsilon {eps}, no realistic attack was shown to rebuild more images than chance would."


def _worth(summary: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    metrics = view["metrics"]
    if not metrics:
        return ""
    name = metrics[0]
    value = figure_with_interval(name, summary["utility"])
    judged = f" ({view['judged_on']})" if view["judged_on"] else ""
    ends = ", with a 95% interval in brackets" if interval(name, summary["utility"]) else ""
    meaning = f" {metric(name).meaning}" if metric(name).meaning else ""
    return f"What the model is worth: {view['labels'][name]} {value} on the test split{judged}{ends}.{meaning}"


def _rebuilt(attacks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"What an adversary had: of {show_count(attack['records'])} records that were attacked, "
        f"{show_percent(attack['success_rate'])} were rebuilt by {attack['words']}{_between(attack)}; "
        f"records that were never sent score {show_percent(attack['chance'])} by the same measure."
        for attack in strongest(attacks)
    ]


def _inferred(attacks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was told of whole hospitals, and of bits of their patients."""
    return [_INFERRED[attack["kind"]](attack) for attack in strongest(attacks) if attack["kind"] in _INFERRED]


def _population(attack: Mapping[str, Any]) -> str:
    small, large = (show_percent(share) for share in attack["shares"])
    ends = " to ".join(show_similarity(end) for end in attack["auc_ci95"])
    return (
        f"What an adversary had of a hospital as a whole: by one round's answer, one of which {large} have "
        f"{attack['property']} was told from one of which {small} have it with an area under the curve of "
        f"{show_similarity(attack['auc'])} (95% interval {ends}; 0.5 is a coin). A budget is about single "
        "records, and is not meant to hide a hospital's population."
    )


def _bits(attack: Mapping[str, Any]) -> str:
    return (
        f"What counting queries would give away at the same budget: of {show_count(attack['records'])} "
        f"{attack['unit']}s, whether {attack['property']} was told rightly of {show_percent(attack['success_rate'])}"
        f"{_between(attack)}; the more common answer alone is right for {show_percent(attack['chance'])}."
    )


_INFERRED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"property": _population, "queries": _bits}


def _between(attack: Mapping[str, Any]) -> str:
    ends = attack["success_rate_ci95"]
    return "" if ends is None else f" (95% interval {show_percent(ends[0])} to {show_percent(ends[1])})"


def _theory(models: Sequence[Mapping[str, Any]], unit: str) -> list[str]:
    bounds = {model["name"]: model["bound"] for model in models}
    worst = bounds.get("worst_case")
    if worst is None:
        return []
    if worst > _NOTHING:
        return [
            "What theory promises: nothing at this budget. An adversary who already holds candidate images may tell "
            "which one was trained on; what protects, if anything does, was measured and not proven."
        ]
    return [
        f"What theory promises: whatever the adversary tries, it succeeds with a {unit} with a probability of at most "
        f"{show_percent(worst)}."
    ]


def utility_cards(summary: Mapping[str, Any], view: Mapping[str, Any]) -> list[Card]:
    """The first metrics on the test split, and the worst served hospital."""
    labels, utility = view["labels"], summary["utility"]
    found = []
    for name in view["metrics"][:_CARDS]:
        ends = interval(name, utility)
        more = f" (95% interval {ends})" if ends else ""
        found.append(Card(str(figure(name, utility)), f"{labels[name]} on the test split{more}"))
    least = view["worst_hospital"]
    if least:
        name = least["metric"]
        words = f"{labels.get(name, name)} at the worst served hospital, {least['name']}"
        found.append(Card(str(figure(name, {name: least["value"]})), words))
    return found


def risk_cards(view: Mapping[str, Any]) -> list[Card]:
    """Of each threat model and kind the strongest attack."""
    found = [attack for model in view["models"] for attack in strongest(model["attacks"])]
    return [_risk_card(attack) for attack in found] or [Card(DASH, "no attack was run")]


def _risk_card(attack: Mapping[str, Any]) -> Card:
    exposed = attack["leaks"] or attack["above_bound"]
    tone = "leak" if exposed else "safe" if attack["success_rate"] is not None else ""
    records = or_withheld(show_count)(attack["records"])
    words = f"of {records} {attack['unit']}s {ACHIEVED[attack['kind']]} by {attack['words']}"
    if attack["of"] > 1:
        words += f", the strongest of {attack['of']}"
    if attack["success_rate_ci95"]:
        words += f"{_between(attack)}: {'more than chance' if attack['leaks'] else 'not more than chance'}"
    if attack["bound"] is not None:
        words += f"; {'above its bound,' if attack['above_bound'] else 'bound'} {show_percent(attack['bound'])}"
    return Card(show_percent(attack["success_rate"]), words, tone)
