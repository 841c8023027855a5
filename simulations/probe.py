"""A malicious server's probes: crafted by the attacks, answered through the hospitals' ordinary app, kept for later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from hbdp_fed.adversary import ATTACKS, ProbingAttack, TailoredAttack, build_attack, public_of_mean
from hbdp_fed.data import as_floats
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.seeding import generator
from hbdp_fed.types import HospitalPlan, ModelSpec, ModelUpdate, Observation, PublicSideInformation, Weights
from simulations.attack_settings import attack_settings
from simulations.prepare import Prepared
from simulations.side_information import AFTER_TRAINING, side_information

PROBE_STEPS = 1
"""A probe asks for one step: the update of several is a sum that is harder to read."""


def recording_name(attack: str, number: int, hospital: str) -> str:
    """The file name under which a hospital's answer to an attack's probe, or the mean of all answers, is kept."""
    return f"{attack}_round-{number:04d}_{hospital.replace(' ', '-')}"


@dataclass
class ProbeCampaign:
    """Crafts each attack's malicious model, sends it as often as planned, and says what was observed.

    It sees what a server sees: the announced mechanisms, its own public images, and the answers.

    Attributes:
        prepared: The run; only what a server knows is read from it.
        attacks: By name, those that hand out a model.
    """

    prepared: Prepared
    attacks: Mapping[str, ProbingAttack]
    _crafted: dict[str, tuple[ModelSpec, Weights]] = field(default_factory=dict)

    @classmethod
    def planned(cls, prepared: Prepared) -> ProbeCampaign | None:
        """The campaign of a run; None if there are no probes."""
        if prepared.probes == 0:
            return None
        attacks = {name: build_attack(name, **attack_settings(prepared, name)) for name in prepared.attacks.probing}
        return cls(prepared, attacks)

    def requests(self, final: Weights) -> Iterator[TrainRequest]:
        """The probes in their order; an attack's model is crafted when its first one is asked for."""
        weights = {name: value.float() for name, value in final.items()}
        for name, numbers in self.prepared.probe_rounds.items():
            stream = generator(self.prepared.config.seed, "adversary", name, "craft")
            attack = self.attacks[name]
            architecture, planted = attack.craft(self.prepared.architecture, weights, self._aimed_at(attack), stream)
            self._crafted[name] = architecture, planted
            for number in numbers:
                yield TrainRequest(
                    round=number,
                    steps=PROBE_STEPS,
                    architecture=architecture,
                    weights=planted,
                    tailored=self._tailored(attack, planted),
                )

    def handed(self, name: str) -> tuple[ModelSpec, Weights]:
        """The model of an attack whose probes were sent, as the first hospital was handed it."""
        architecture, planted = self._crafted[name]
        tailored = self._tailored(self.attacks[name], planted)
        return architecture, planted if tailored is None else tailored(self.prepared.plans[0].name)

    def _aimed_at(self, attack: ProbingAttack) -> PublicSideInformation:
        """Whose answer an attack's model is made for: the mean's, or that of the likeliest hospital to leak."""
        plans = self.prepared.plans
        if isinstance(attack, TailoredAttack):
            shares = {plan.name: share for plan, share in zip(plans, self.prepared.shares, strict=True)}
            return public_of_mean({plan.name: self._public(plan) for plan in plans}, shares)
        # With the least noise; all get the same model, as in any round.
        return self._public(min(plans, key=lambda plan: plan.mechanism.noise_multiplier))

    def _tailored(self, attack: ProbingAttack, planted: Weights) -> Callable[[str], Weights] | None:
        """What each hospital is handed of an attack's model; None if that is the same for all."""
        if not isinstance(attack, TailoredAttack):
            return None
        places = {plan.name: place for place, plan in enumerate(self.prepared.plans)}
        return lambda hospital: attack.for_hospital(planted, places[hospital])

    def observation(self, update: ModelUpdate) -> tuple[str, Observation]:
        """What the adversary may see of one hospital's answer, and nothing else, with the recording's name."""
        attack = self._attack_of(update.round)
        architecture, planted = self._crafted[attack]
        plan = next(plan for plan in self.prepared.plans if plan.name == update.hospital)
        return recording_name(attack, update.round, update.hospital), Observation(
            threat_model=ATTACKS[attack].threat_model,
            architecture=architecture,
            model_before=planted,
            released=update,
            public=self._public(plan),
        )

    def observation_of_sum(self, revealed: RevealedSum) -> tuple[str, Observation]:
        """The same where the server saw nothing but the mean of those that answered."""
        plans = {plan.name: plan for plan in self.prepared.plans}
        weights, update = revealed.weights, revealed.update
        # Only those that answered are in the mean.
        whole = sum(weights.values()) if len(weights) < revealed.asked else 1.0
        attack = self._attack_of(update.round)
        architecture, planted = self._crafted[attack]
        return recording_name(attack, update.round, update.hospital), Observation(
            threat_model=replace(ATTACKS[attack].threat_model, surface="aggregate"),
            architecture=architecture,
            model_before=planted,
            released=update,
            public=public_of_mean(
                {name: self._public(plans[name]) for name in weights},
                {name: weight / whole for name, weight in weights.items()},
            ),
        )

    def _attack_of(self, number: int) -> str:
        return next(name for name, numbers in self.prepared.probe_rounds.items() if number in numbers)

    def _public(self, plan: HospitalPlan) -> PublicSideInformation:
        return side_information(self.prepared, plan, self._images, progress=AFTER_TRAINING, steps=PROBE_STEPS)

    @cached_property
    def _images(self) -> Tensor:
        return as_floats(self.prepared.federated.val.images)
