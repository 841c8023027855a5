"""A malicious server's probes: crafted by the attack, answered through the hospitals' ordinary app, kept for later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hbdp_fed.adversary import REALISTIC, ProbingAttack
from hbdp_fed.data import as_floats
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.seeding import generator
from hbdp_fed.training import optimizer_at
from hbdp_fed.types import HospitalPlan, ModelSpec, ModelUpdate, Observation, PublicSideInformation, Weights
from simulations.prepare import Prepared

PROBE_STEPS = 1
"""A probe asks for one step: the update of several is a sum that is harder to read."""


def recording_name(observation: Observation) -> str:
    """The file name under which an observation and its reconstruction are kept."""
    return f"round-{observation.released.round:04d}_{observation.released.hospital}"


@dataclass
class ProbeCampaign:
    """Crafts one malicious model, sends it as often as planned, and keeps what came back.

    It sees what a server sees: the announced mechanisms, its own public images, and the answers.

    Attributes:
        attack: The attack.
        prepared: The run; only what a server knows is read from it.
        answers: The updates of each probe's round.
    """

    attack: ProbingAttack
    prepared: Prepared
    answers: dict[int, Sequence[ModelUpdate]] = field(default_factory=dict)
    _crafted: tuple[ModelSpec, Weights] | None = None

    def requests(self, final: Weights, *, first_round: int) -> Iterator[TrainRequest]:
        """The probes, numbered from ``first_round``; the model is crafted when the first one is asked for."""
        # Made for the hospital with the least noise, the likeliest to leak; all get the same model, as in any round.
        target = min(self.prepared.plans, key=lambda plan: plan.mechanism.noise_multiplier)
        weights = {name: value.float() for name, value in final.items()}
        self._crafted = self.attack.craft(
            self.prepared.architecture,
            weights,
            self._public(target),
            generator(self.prepared.config.seed, "adversary", "craft"),
        )
        architecture, planted = self._crafted
        for number in range(first_round, first_round + self.prepared.probes):
            yield TrainRequest(round=number, steps=PROBE_STEPS, architecture=architecture, weights=planted)

    def record(self, number: int, updates: Sequence[ModelUpdate]) -> None:
        """Keep the answers of one probe."""
        self.answers[number] = updates

    def observations(self, *rounds: int) -> Iterator[Observation]:
        """What the adversary may see of each hospital in these probes (all, if none is named), and nothing else."""
        if self._crafted is None:
            return
        architecture, planted = self._crafted
        plans = {plan.name: plan for plan in self.prepared.plans}
        for number in rounds or sorted(self.answers):
            for update in self.answers[number]:
                yield Observation(
                    threat_model=REALISTIC,
                    architecture=architecture,
                    model_before=planted,
                    released=update,
                    public=self._public(plans[update.hospital]),
                )

    def _public(self, plan: HospitalPlan) -> PublicSideInformation:
        return PublicSideInformation(
            images=as_floats(self.prepared.federated.val.images),
            mechanism=plan.mechanism,
            # A probe comes after training, where the schedule's last value holds.
            optimizer=optimizer_at(self.prepared.local, 1.0),
            expected_batch=plan.expected_batch,
            loss=self.prepared.local.loss,
            class_weights=self.prepared.local.class_weights,
        )
