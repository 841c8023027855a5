"""What the server makes of the hospitals' mean update: adds it, or takes a step of an optimiser of its own.

Reddi et al. 2021 (arXiv 2003.00295, algorithm 1): the negative mean update stands for the gradient. Hospitals that take
one step of plain SGD with learning rate 1 send exactly the negative of their noisy gradients, and the federation then
trains as one place with all records would, momentum and all. It is post-processing of what was released with noise, and
costs no budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.training import ScheduleSettings, learning_rate_factor
from hbdp_fed.types import OptimizerSettings, Weights


@dataclass(frozen=True)
class ServerSettings:
    """The server's optimiser.

    Attributes:
        optimizer: Its name, learning rate, momentum and weight decay. Unlike the hospitals', it lives through all
            rounds.
        schedule: What becomes of its learning rate over the rounds.
    """

    optimizer: OptimizerSettings
    schedule: ScheduleSettings


class ServerStep:
    """Moves the global weights, round after round.

    Args:
        settings: The server's optimiser; None adds the mean update as it is (McMahan et al. 2017).
        rounds: All training rounds, for the schedule.
        state: As :attr:`state` was after an earlier round, to go on from there; empty to begin.
    """

    def __init__(self, settings: ServerSettings | None, *, rounds: int, state: Weights | None = None) -> None:
        self._settings = settings
        self._rounds = rounds
        self._resumed = dict(state or {})
        self._masters: dict[str, torch.Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    def take(self, weights: Weights, mean_update: Weights, *, round: int) -> Weights:
        """The global weights after a round, float64.

        Args:
            weights: Before it, as :meth:`take` returned them last.
            mean_update: The weighted mean of the hospitals' updates, by the same names.
            round: Its number, from 1.
        """
        if self._settings is None:
            return {name: value.double() + mean_update[name] for name, value in weights.items()}
        if self._optimizer is None:
            self._masters = {name: value.detach().double().clone() for name, value in weights.items()}
            self._optimizer = build_optimizer(list(self._masters.values()), self._settings.optimizer)
            self._restore(self._optimizer)
        factor = learning_rate_factor(self._settings.schedule, (round - 1) / self._rounds)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.optimizer.learning_rate * factor
        for name, master in self._masters.items():
            master.grad = -mean_update[name].double()
        self._optimizer.step()
        return {name: master.clone() for name, master in self._masters.items()}

    @property
    def state(self) -> Weights:
        """What the optimiser remembers, by ``<parameter's place>.<name>``; empty without one."""
        if self._optimizer is None:
            return {}
        remembered = self._optimizer.state_dict()["state"]
        return {
            f"{place}.{name}": torch.as_tensor(value).detach().clone()
            for place, own in remembered.items()
            for name, value in own.items()
            if value is not None
        }

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        masters = list(self._masters.values())
        for key, value in self._resumed.items():
            place, name = key.split(".", 1)
            # Not by load_state_dict, which would take the products of NAdam from float32 to the weights' float64.
            optimizer.state[masters[int(place)]][name] = value.clone()
        self._resumed = {}
