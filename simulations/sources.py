"""What an attack that rebuilds images gets to see, made from what a run recorded: a source each kind of attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hbdp_fed.adversary import REALISTIC, load_observation, public_of_mean, seen_on
from hbdp_fed.audit import SimulatedTraining, replay_round
from hbdp_fed.models import read_weights
from hbdp_fed.types import (
    ALL_HOSPITALS,
    ModelSpec,
    ModelUpdate,
    Observation,
    PublicSideInformation,
    Surface,
    ThreatModel,
    Weights,
)
from simulations.run_folder import RunFolder


class Source(Protocol):
    """Names what it needs on disk, so that a worker process can make the observation."""

    def observe(self) -> Observation:
        """What the adversary sees."""
        ...


@dataclass(frozen=True)
class ProbeAnswers:
    """The answers to a probe, as they were recorded.

    Attributes:
        folder: Of recordings.
        recordings: Of all hospitals in one probe, or of the one hospital that is seen; or that of their mean, where
            nothing else was recorded.
        shares: Each of these hospitals' weight in the mean.
        surface: What is seen.
    """

    folder: Path
    recordings: tuple[str, ...]
    shares: Mapping[str, float]
    surface: Surface

    def observe(self) -> Observation:
        """What the adversary sees."""
        answers = [load_observation(self.folder, name) for name in self.recordings]
        [observation] = seen_on(self.surface, answers, self.shares)
        return observation


@dataclass(frozen=True)
class RoundAnswers:
    """What an ordinary training round released of one hospital, or of the mean of all.

    Attributes:
        folder: The run's.
        architecture: The model that is trained.
        number: The round.
        publics: By hospital that is seen or in the mean, what the adversary knows beside its answer.
        records: How many each of them holds.
        shares: Each one's weight in the mean.
        surface: What is seen; ``gradient`` is the round's first step.
        training: That one hospital's training, to take that step again; None on other surfaces.
        summed: Whether the hospitals' mean is all that was recorded.
    """

    folder: Path
    architecture: ModelSpec
    number: int
    publics: Mapping[str, PublicSideInformation]
    records: Mapping[str, int]
    shares: Mapping[str, float]
    surface: Surface
    training: SimulatedTraining | None = None
    summed: bool = False

    def observe(self) -> Observation:
        """What the adversary sees."""
        run = RunFolder(self.folder)
        # Weights travel in float32.
        before = {name: value.float() for name, value in read_weights(run.checkpoint_file(self.number - 1)).items()}
        if self.summed:
            public = public_of_mean(self.publics, self.shares)
            everybody = sum(self.records.values())
            answers = [self._observed(before, self._recorded(run, ALL_HOSPITALS), ALL_HOSPITALS, everybody, public)]
        else:
            answers = [
                self._observed(before, self._delta(run, hospital, before), hospital, self.records[hospital], public)
                for hospital, public in self.publics.items()
            ]
        [observation] = seen_on(self.surface, answers, self.shares)
        return observation

    def _observed(
        self, before: Weights, delta: Weights, hospital: str, records: int, public: PublicSideInformation
    ) -> Observation:
        surface: Surface = "aggregate" if hospital == ALL_HOSPITALS else "update"
        return Observation(
            threat_model=_seeing(surface),
            architecture=self.architecture,
            model_before=before,
            released=ModelUpdate(hospital=hospital, round=self.number, delta=delta, num_records=records),
            public=public,
        )

    def _delta(self, run: RunFolder, hospital: str, before: Weights) -> Weights:
        if self.training is None:
            return self._recorded(run, hospital)
        return replay_round(self.training, self.training.index(hospital), self.number, before, steps=1).delta

    def _recorded(self, run: RunFolder, hospital: str) -> Weights:
        return read_weights(run.update_file(self.number, hospital))


@dataclass(frozen=True)
class LastModel:
    """The released model, and what everybody knows besides.

    Attributes:
        folder: The run's.
        architecture: Of the model.
        initial: The weights that training started from.
        rounds: Of training.
        public: What is known beside the hospitals' mean.
        records: Of all hospitals together.
    """

    folder: Path
    architecture: ModelSpec
    initial: Weights
    rounds: int
    public: PublicSideInformation
    records: int

    def observe(self) -> Observation:
        """What the adversary sees."""
        final = read_weights(RunFolder(self.folder).model_file)
        return Observation(
            threat_model=_seeing("global_model"),
            architecture=self.architecture,
            model_before=self.initial,
            released=ModelUpdate(
                hospital=ALL_HOSPITALS,
                round=self.rounds,
                delta={name: final[name].double() - value.double() for name, value in self.initial.items()},
                num_records=self.records,
            ),
            public=self.public,
        )


def _seeing(surface: Surface) -> ThreatModel:
    return replace(REALISTIC, surface=surface)
