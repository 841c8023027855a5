"""What the pages, the texts and the card say alike: the adversaries, what they see, and how far the claim goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hbdp_fed.adversary.threat_models import THREAT_MODELS

ADVERSARIES: Mapping[str, str] = {
    "worst_case": (
        "The adversary holds candidate images with the patient's own among them, and every other record. Differential "
        "privacy is defined against this one."
    ),
    "relaxed": (
        "The adversary holds every other record, but not the patient's image. It hands out a model of its own making, "
        "and only the noise is in the way of its algorithm."
    ),
    "realistic": (
        "A malicious server hands out a model of its own making and uses the attacks that people have published. It "
        "holds public images of the same kind, and no record."
    ),
}
"""The threat models in plain words."""

SURFACES: Mapping[str, str] = {
    "gradient": (
        "every noisy step of every hospital; of a model that the adversary made, the answer to it, which is one step"
    ),
    "update": "what each hospital sends in a round",
    "aggregate": "only the weighted mean of what all hospitals send, as under secure aggregation",
    "global_model": "only the model before and after",
    "queries": "answers to counting queries, and nothing of the training",
}
"""What an adversary sees, in plain words."""

ACHIEVED: Mapping[str, str] = {
    "reconstruction": "rebuilt",
    "identification": "named",
    "membership": "recognised",
    "property": "put on the right side",
    "queries": "had a bit told",
}
"""What happened to a record, or a population, that an attack of that kind succeeded with."""

NOISES: Mapping[str, str] = {
    "none": "none",
    "budget": "the run's budget, for all answers together",
    "failing": "at which the attack has to fail",
}
"""The noise on answers to counting queries, in plain words."""

_OF_RECORDS = (
    "Bounds and budgets are for one record at one hospital. A patient with several records, or with records at several "
    "hospitals, has less."
)
_OF_EITHER = (
    "Bounds and budgets are for one record at one hospital or, with privacy.unit=patient, for one patient with all "
    "records there. Whoever has several records where the unit is a record, or is at several hospitals, has less."
)

LIMITS = (
    "Success rates are of the attacks that were run, on this data, at this size and for this many steps. Another "
    "attack may do better; where theory gives a bound, no adversary of its kind does better than the bound.",
    _OF_EITHER,
    "Epsilon covers what hospitals send as updates. Losses, counts, validation figures, figures of utility and the "
    "choice of settings are the experimenter's view and outside of it.",
    "Noise that is drawn from a run's seed can be repeated by whoever has the seed: it stands for noise in a "
    "simulation and protects nobody.",
    "Utility is measured on one test split of one data set. It says nothing of other scanners, other patients or other "
    "places.",
    "Hospitals, their computers and their lines are simulated, and so are the times that they take.",
)
"""What no report claims, whatever the unit of privacy of its runs is."""


def limits_of(unit: str) -> tuple[str, ...]:
    """The same for runs whose unit is a ``record``, or a ``patient`` or whatever else a data set calls its groups."""
    told = _OF_RECORDS
    if unit != "record":
        told = (
            f"Bounds and budgets are for one {unit} with all records at one hospital. A {unit} at several hospitals "
            f"has less, and so has one record by itself where the {unit}'s other ones are known."
        )
    return tuple(told if line == _OF_EITHER else line for line in LIMITS)


"""How far the claim goes, in plain words."""


@dataclass(frozen=True)
class Capability:
    """One line of the table of threat models.

    Attributes:
        words: What the adversary has or can do.
        held: By threat model, whether it does.
    """

    words: str
    held: Mapping[str, bool]


CAPABILITIES = (
    Capability("hands out a model of its own making", {m.name: m.malicious_server for m in THREAT_MODELS.values()}),
    Capability(
        "has a perfect algorithm: only the noise is in its way",
        {m.name: m.perfect_algorithm for m in THREAT_MODELS.values()},
    ),
    Capability(
        "holds candidates with the patient's image among them",
        {m.name: m.knows_candidates for m in THREAT_MODELS.values()},
    ),
)
"""The threat models side by side, from their definitions."""
