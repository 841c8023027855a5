"""SCAFFOLD's control variates on their way through a federation (the method: :mod:`hbdp_fed.training.correction`).

The server keeps c and sends it along with the weights. A hospital keeps its own c_i in its Flower state. Nothing but
the update travels back: both sides read out of it how c_i moves, so that c stays the mean of the hospitals' c_i. It
travels in float64, so that both read the same; a request is three times as large as one of float32 weights alone.

That mean has the weights of the mean of updates, over all hospitals. The paper's is unweighted, as its objective is;
``federation.weighting=equal`` gives exactly that. Where hospitals count by their records, so must their c_i: near the
optimum a corrected step goes along c, and an unweighted c would lead to the optimum of another objective than the one
that federated averaging descends. With some of the hospitals in a round, c moves by their part of all weights, the |S|
/ N of the paper.

An answer that is lost or rejected moves the hospital's c_i while the server, which never used it, leaves c. If that
stayed so, c would be wrong by the lost difference for good, and training would end at another point. So the server
tells along with c whose last answer it did not use, and that hospital, if it had come to renew its c_i, goes back to
the one before. A hospital that raised or was killed has renewed nothing, and has nothing to take back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, RecordDict

from hbdp_fed.federation.codec import Control
from hbdp_fed.federation.wire import from_arrays, to_arrays
from hbdp_fed.training import added_gradient, mean_gradient, next_control
from hbdp_fed.types import ModelUpdate, Weights

_OWN, _BEFORE, _ROUND = "control", "control-before", "control-round"
_C, _LOST = "c.", "lost."


class ServerControl:
    """The server's side: c, and whose answers were lost.

    Args:
        shares: Every hospital's weight in the mean of all; they add up to 1.
        like: The global weights, for names and shapes: c begins at 0.
        state: As :attr:`state` was after an earlier round, to go on from there; empty to begin.
    """

    def __init__(self, shares: Mapping[str, float], *, like: Weights, state: Weights | None = None) -> None:
        state = state or {}
        self._shares = shares
        self._c: Weights = {
            name: state[_C + name] if state else torch.zeros_like(value, dtype=torch.float64)
            for name, value in like.items()
        }
        self._lost = {key.removeprefix(_LOST): int(value) for key, value in state.items() if key.startswith(_LOST)}
        self._used: list[str] = []

    @property
    def sent(self) -> Control:
        """What the hospitals are sent in the next round."""
        return Control(c=self._c, lost=dict(self._lost))

    @property
    def state(self) -> Weights:
        """What has to be known to go on."""
        lost = {_LOST + name: torch.tensor(number) for name, number in self._lost.items()}
        return {**{_C + name: value for name, value in self._c.items()}, **lost}

    def noting(self, updates: Iterable[ModelUpdate]) -> Iterator[ModelUpdate]:
        """The same updates, one by one; whose they are is remembered for :meth:`take`, and nothing else of them."""
        self._used = []
        for update in updates:
            self._used.append(update.hospital)
            yield update

    def take(self, mean_update: Weights, *, asked: Sequence[str], round: int, weight: float) -> None:
        """Move c by what a round's updates say, once they have all passed :meth:`noting`.

        Args:
            mean_update: Their weighted mean.
            asked: Who was asked.
            round: Its number.
            weight: By how much a round's gradients move the weights in all.
        """
        share = sum(self._shares[name] for name in self._used)
        self._c = next_control(self._c, mean_update, share=share, weight=weight)
        for name in asked:
            if name in self._used:
                self._lost.pop(name, None)
            else:
                self._lost[name] = round


@dataclass(frozen=True)
class HospitalControl:
    """The hospital's side of one round.

    Attributes:
        own: c_i, of the last round whose answer was used; None before the first one.
        added: c - c_i, which is added to every gradient.
    """

    own: Weights | None
    added: Weights

    @classmethod
    def begun(cls, state: RecordDict, control: Control, *, hospital: str) -> HospitalControl:
        """What a round begins with.

        Args:
            state: The hospital's persistent Flower state.
            control: What the server sent.
            hospital: Its name.
        """
        noted = state.config_records.get(_ROUND)
        unused = noted is not None and control.lost.get(hospital) == noted["round"]
        kept = state.array_records.get(_BEFORE if unused else _OWN)
        own = None if kept is None else from_arrays(kept)
        return cls(own=own, added=added_gradient(control.c, own))

    def keep(self, state: RecordDict, delta: Weights, *, round: int, weight: float, may_be_lost: bool) -> None:
        """Renew c_i by the round's update.

        Args:
            state: The hospital's persistent Flower state; changed in place.
            delta: The update.
            round: Its number.
            weight: By how much the round's gradients moved the weights in all.
            may_be_lost: Whether the federation goes on without an answer that is lost, so that the c_i before is kept.
        """
        state.pop(_BEFORE, None)
        if may_be_lost and self.own is not None:
            state[_BEFORE] = to_arrays(self.own)
        state[_OWN] = to_arrays(mean_gradient(delta, self.added, weight=weight))
        state[_ROUND] = ConfigRecord({"round": round})
