"""What attacks on one run need: the run as it was planned, what it recorded, and whose records are attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hbdp_fed.adversary import ATTACKS
from hbdp_fed.audit import Criterion, SimulatedTraining
from hbdp_fed.data import as_floats
from hbdp_fed.types import Surface
from simulations.adversary_plan import ALONE, surfaces_seen
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder
from simulations.schema import AdversaryConfig
from simulations.simulated import simulated_training


@dataclass(frozen=True)
class Assault:
    """Everything that attacks on one run need.

    Attributes:
        prepared: The run, as it was planned.
        folder: Where it recorded.
        attacks: Which, in the registry's order; what each needs is there (see :func:`check_recorded`).
        say: Tells people what goes on.
    """

    prepared: Prepared
    folder: RunFolder
    attacks: tuple[str, ...]
    say: Callable[[str], None]

    @property
    def adversary(self) -> AdversaryConfig:
        """How to attack."""
        return self.prepared.config.adversary

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Where the adversary stands."""
        return surfaces_seen(self.adversary, secure=self.secure)

    def surfaces_of(self, attack: str) -> tuple[Surface, ...]:
        """What an attack is told by: whoever reads the released model alone sees nothing else, wherever it stands."""
        entry = ATTACKS[attack]
        if entry.kind == "model":
            return entry.surfaces
        return tuple(surface for surface in self.surfaces if surface in entry.surfaces)

    @property
    def secure(self) -> bool:
        """Whether nothing but sums was recorded."""
        return self.prepared.config.federation.secure_aggregation

    @cached_property
    def training(self) -> SimulatedTraining:
        """The federation, whose every draw is known."""
        return simulated_training(self.prepared)

    @cached_property
    def public(self) -> Tensor:
        """The images that the adversary had anyway."""
        return as_floats(self.prepared.federated.val.images)

    @property
    def criterion(self) -> Criterion:
        """What counts as rebuilt."""
        first, *others = self.adversary.thresholds
        return Criterion(ssim=first, also=tuple(others))

    def probes(self, attack: str) -> tuple[int, ...]:
        """The rounds of an attack's probes that are attacked."""
        numbers = self.prepared.probe_rounds.get(attack, ())
        wanted = self.adversary.rounds
        return tuple(number for number in numbers if not wanted or number in wanted)

    def hospitals(self) -> list[str]:
        """Whose records are attacked."""
        return list(self.adversary.hospitals) or [plan.name for plan in self.prepared.plans]

    @cached_property
    def silent(self) -> frozenset[tuple[str, int]]:
        """Hospitals of which a round or probe has no answer, with its number: it failed, came late, or never was."""
        return self.folder.failed()

    def observed_of(self, hospital: str, surface: Surface) -> tuple[int, ...]:
        """The training rounds that games about a hospital are about, seen from a surface, ascending.

        Where hospitals are seen one by one, those that it answered; where only their mean is seen, those that every
        hospital answered: the games take each one for part of every round.
        """
        seen = self.prepared.observed
        if surface in ALONE:
            return tuple(number for number in seen if (hospital, number) not in self.silent)
        incomplete = {number for _, number in self.silent}
        if surface == "global_model" and self.adversary.only_last_model:
            # Everything that ever was averaged is one release.
            whole = incomplete.isdisjoint(range(1, self.prepared.hyper.rounds + 1))
            return seen if whole else ()
        return tuple(number for number in seen if number not in incomplete)

    def observed(self, surface: Surface) -> Mapping[str, tuple[int, ...]]:
        """By hospital whose records are attacked, the rounds of :meth:`observed_of`; without those that have none."""
        found = {name: self.observed_of(name, surface) for name in self.hospitals()}
        return {name: rounds for name, rounds in found.items() if rounds}

    def early_round(self, hospitals: Sequence[str]) -> int | None:
        """The first training round that all of these hospitals answered; None where there is none.

        Before the first round the model is fresh, and the gradients of a fresh model tell the most of their images.
        """
        wanted = self.adversary.rounds
        numbers = [n for n in range(1, self.prepared.hyper.rounds + 1) if not wanted or n in wanted]
        return next((n for n in numbers if not any((name, n) in self.silent for name in hospitals)), None)

    def answered(self, number: int) -> list[str]:
        """The hospitals that answered a round or probe, in their order."""
        return [plan.name for plan in self.prepared.plans if (plan.name, number) not in self.silent]
