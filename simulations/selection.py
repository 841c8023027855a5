"""Which round's model is released: they are judged on validation, and the best is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hbdp_fed.audit.wording import label, written
from hbdp_fed.errors import TrainingDiverged
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.training import averaged
from hbdp_fed.training.tasks import Point, Task, figures
from hbdp_fed.types import ModelUpdate, Weights
from simulations.prepare import Prepared

Figures = Mapping[str, float | None]
"""By name; None where a figure does not exist."""


@dataclass(frozen=True)
class Chosen:
    """The round that validation chose.

    Attributes:
        round: Its number, from 1.
        weights: The global weights after it, or their moving average, float32: the released model.
        point: The operating point chosen on the same validation records, for example the decision threshold.
        validation: The figures there.
        local: By hospital, its own model of that round, float32: the weights that it was handed plus its update. Empty
            where there are more hospitals than ``evaluation.matrix``.
        history: Every round's number and figures on validation, each at the point best for it.
    """

    round: int
    weights: Weights
    point: Point
    validation: Figures
    local: Mapping[str, Weights] = field(default_factory=dict)
    history: Sequence[tuple[int, Figures]] = ()


class RoundSelection:
    """Follows the rounds of one federation.

    Attributes:
        best: The best round so far; None before the first one whose model gives an answer at all.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.best: Chosen | None = None
        self._prepared = prepared
        self._model = build_model(prepared.architecture).to(prepared.device)
        self._history: list[tuple[int, Figures]] = []
        self._average: Weights = {}
        self._handed_out: Weights = {}
        self._updates: list[ModelUpdate] = []
        self._said = "not judged yet"

    def see_update(self, update: ModelUpdate) -> None:
        """One of the updates that the next global weights come of; kept where the federation is small."""
        if len(self._prepared.plans) <= self._prepared.config.evaluation.matrix:
            self._updates.append(update)

    def take_updates(self) -> Sequence[ModelUpdate]:
        """The updates that were kept since the last call."""
        taken, self._updates = self._updates, []
        return taken

    def see_global(self, number: int, weights: Weights, updates: Sequence[ModelUpdate] = ()) -> str:
        """Judge the global weights (float64) after a round.

        Args:
            number: The round's; at 0 the weights are where training starts.
            weights: After it.
            updates: From :meth:`take_updates`: those that the weights came of, if they were kept.

        Returns:
            In a few words, how good they are, or the last ones that were judged (see ``evaluation.every``).
        """
        if number == 0:
            self._average = self._handed_out = weights
            return self._said
        # Training goes on from the weights themselves; the average is for release alone, and costs no budget.
        decay = self._prepared.config.training.ema_decay
        self._average = averaged(self._average, weights, round=number, decay=decay)
        is_judged = number % self._prepared.config.evaluation.every == 0 or number == self._prepared.hyper.rounds
        released = {name: value.float() for name, value in self._average.items()}
        if is_judged:
            self._said = self._judge(number, released, updates)
        self._handed_out = weights
        return self._said

    @property
    def latest(self) -> tuple[int, Figures]:
        """The last round that was judged, with its figures on validation; 0 and none before the first."""
        return self._history[-1] if self._history else (0, {})

    def state(self) -> tuple[Mapping[str, Weights], Mapping[str, Any]]:
        """What has to be known to go on after the last round: weights by part, and plain figures."""
        best = self.best
        parts = {"average": self._average}
        facts: dict[str, Any] = {"history": self._history, "said": self._said, "best": None}
        if best is not None:
            parts |= {"best": best.weights, **{f"local {name}": own for name, own in best.local.items()}}
            facts["best"] = {"round": best.round, "point": best.point, "validation": best.validation}
        return parts, facts

    def restore(self, parts: Mapping[str, Weights], facts: Mapping[str, Any], *, handed_out: Weights) -> None:
        """The inverse of :meth:`state`, given the last global weights."""
        self._average, self._handed_out = parts["average"], handed_out
        self._said = facts["said"]
        self._history = [(number, _figures(found)) for number, found in facts["history"]]
        if facts["best"] is not None:
            self.best = Chosen(
                round=facts["best"]["round"],
                weights=parts["best"],
                point=facts["best"]["point"],
                validation=_figures(facts["best"]["validation"]),
                local={name.removeprefix("local "): own for name, own in parts.items() if name.startswith("local ")},
            )

    def chosen(self) -> Chosen:
        """The round to release, once all have been seen.

        Raises:
            TrainingDiverged: if no round left a model that gives an answer.
        """
        if self.best is None:
            raise TrainingDiverged(
                "no round left a model whose outputs are finite: training has diverged; take a smaller "
                "training.learning_rate"
            )
        return replace(self.best, history=self._history)

    def _judge(self, number: int, released: Weights, updates: Sequence[ModelUpdate]) -> str:
        prepared, task = self._prepared, self._prepared.task
        load_weights(self._model, released)
        try:
            evidence = task.judge(
                self._model,
                prepared.federated.val,
                device=prepared.device,
                spacing=prepared.dataset.spacing,
                thorough=False,
            )
        except TrainingDiverged as problem:
            self._history.append((number, dict.fromkeys(task.selection)))
            return str(problem)
        point = task.choose_point(evidence)
        found = figures(task, evidence, point)
        self._history.append((number, found))
        if self.best is None or _rank(found, task) > _rank(self.best.validation, task):
            self.best = Chosen(
                round=number, weights=released, point=point, validation=found, local=self._local_models(updates)
            )
        told = ", ".join(f"{label(name)} {written(name, found[name])}" for name in reversed(task.selection))
        return f"validation {told} (best: round {self.best.round})"

    def _local_models(self, updates: Sequence[ModelUpdate]) -> Mapping[str, Weights]:
        return {
            update.hospital: {name: (self._handed_out[name] + change).float() for name, change in update.delta.items()}
            for update in updates
        }


def _figures(plain: Mapping[str, Any]) -> Figures:
    """Figures out of strict JSON, which writes infinity as a word."""
    return {name: None if value is None else float(value) for name, value in plain.items()}


def _rank(found: Figures, task: Task) -> tuple[float, ...]:
    """By what validation compares rounds; a figure that does not exist is worse than any that does."""
    values = [found[name] for name in task.selection]
    return tuple(-math.inf if value is None else value for value in values)
