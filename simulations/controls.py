"""What SCAFFOLD added to hospitals' gradients in rounds that are over, from the updates that a run recorded.

Server and hospitals compute their control variates from nothing but the updates that were used. So can everybody who
sees those: the adversary of the surfaces ``gradient`` and ``update`` knows what was added, and takes it off again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.federation.aggregation import AggregationSettings, combine
from hbdp_fed.federation.control import ServerControl
from hbdp_fed.models import read_weights
from hbdp_fed.training import LocalSettings, added_gradient, gradient_weights, mean_gradient, round_progress
from hbdp_fed.types import ModelUpdate, Weights


@dataclass(frozen=True)
class RecordedRounds:
    """The training rounds of a run in which every hospital was asked in every round.

    Attributes:
        observations: The folder of recorded updates.
        shares: Every hospital's weight in the mean; they add up to 1. In the hospitals' order.
        silent: Hospitals and rounds whose answer was not used.
        local: How hospitals trained.
        rounds: Training rounds.
        local_steps: Of a round.
    """

    observations: Path
    shares: Mapping[str, float]
    silent: Collection[tuple[str, int]]
    local: LocalSettings
    rounds: int
    local_steps: int

    def added(self, hospitals: Collection[str], rounds: Collection[int]) -> Mapping[tuple[str, int], Weights]:
        """What was added to every gradient of these hospitals in these rounds, to the last bit.

        Args:
            hospitals: Names.
            rounds: Numbers.
        """
        own: dict[str, Weights] = {}
        found: dict[tuple[str, int], Weights] = {}
        control: ServerControl | None = None
        for number in range(1, max(rounds) + 1):
            if control is None:
                control = ServerControl(self.shares, like=next(self._updates(number)).delta)
            c = control.sent.c
            moving = {name: added_gradient(c, own.get(name)) for name in hospitals}
            if number in rounds:
                found.update({(name, number): added for name, added in moving.items()})
            progress = round_progress(number, rounds=self.rounds, local_steps=self.local_steps)
            weight = sum(gradient_weights(self.local, progress, self.local_steps))
            updates = _renewing(self._updates(number), own, moving, weight=weight)
            mean = combine(control.noting(updates), AggregationSettings(), self.shares)
            control.take(mean, asked=list(self.shares), round=number, weight=weight)
        return found

    def _updates(self, number: int) -> Iterator[ModelUpdate]:
        """Those of a round that were used, in the hospitals' order."""
        for name in self.shares:
            if (name, number) not in self.silent:
                delta = read_weights(self.observations / f"round-{number:04d}" / f"{name}.safetensors")
                yield ModelUpdate(hospital=name, round=number, delta=delta, num_records=0)


def _renewing(
    updates: Iterator[ModelUpdate], own: dict[str, Weights], added: Mapping[str, Weights], *, weight: float
) -> Iterator[ModelUpdate]:
    """The same updates; on their way, ``own`` is renewed for the hospitals of ``added``."""
    for update in updates:
        if update.hospital in added:
            own[update.hospital] = mean_gradient(update.delta, added[update.hospital], weight=weight)
        yield update
