"""The worst case's games, played on what a run recorded of its training rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hbdp_fed.audit import SimulatedTraining
from hbdp_fed.audit.candidates import CandidateGame, Played, draw_game, play_rounds, play_steps
from hbdp_fed.data import Records
from hbdp_fed.models import read_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import NO_CORRECTION
from hbdp_fed.types import ALL_HOSPITALS, Surface, Weights
from simulations.controls import RecordedRounds
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder
from simulations.schema import AdversaryConfig


@dataclass(frozen=True)
class GamesTask:
    """The games about some hospitals' records on one surface.

    Attributes:
        training: The federation, or the one hospital that is seen.
        surface: What the adversary sees.
        games: By hospital, the draws and the decoys.
        folder: The run's.
        rounds: Which training rounds are seen, ascending.
        at_once: Whether all of them are one release: only the last model is seen.
        corrected: Tells what was added to gradients, where local steps were corrected.
        summed: Whether the hospitals' mean is all that was recorded.
    """

    training: SimulatedTraining
    surface: Surface
    games: Mapping[str, tuple[CandidateGame, Records]]
    folder: Path
    rounds: tuple[int, ...]
    at_once: bool
    corrected: RecordedRounds | None = None
    summed: bool = False

    def __call__(self) -> PlayedGames:
        """Play."""
        started = time.perf_counter()
        training = self.training
        if self.corrected is not None:
            names = [plan.name for plan in training.plans]
            training = replace(training, added=self.corrected.added(names, self.rounds))
        if self.surface == "gradient":
            played = []
            for hospital, (game, pool) in self.games.items():
                sent = {number: (self._global(number - 1), self._update(number, hospital)) for number in self.rounds}
                played.append(play_steps(training, hospital, sent, game, pool))
        else:
            played = play_rounds(training, self.surface, self._sent(), self.games)
        return PlayedGames(tuple(played), time.perf_counter() - started)

    def _sent(self) -> Mapping[tuple[int, ...], tuple[Weights, Mapping[str, Weights]]]:
        releases = [self.rounds] if self.at_once else [(number,) for number in self.rounds]
        return {rounds: (self._global(rounds[0] - 1), self._changes(rounds)) for rounds in releases}

    def _changes(self, rounds: tuple[int, ...]) -> Mapping[str, Weights]:
        if self.surface == "global_model":
            before, after = self._global(rounds[0] - 1), self._global(rounds[-1])
            return {ALL_HOSPITALS: {name: after[name] - before[name] for name in before}}
        [number] = rounds
        if self.summed:
            return {ALL_HOSPITALS: self._update(number, ALL_HOSPITALS)}
        updates = {plan.name: self._update(number, plan.name) for plan in self.training.plans}
        if self.surface == "update":
            return updates
        shares = {plan.name: share for plan, share in zip(self.training.plans, self.training.shares, strict=True)}
        names = next(iter(updates.values()))
        total = {name: sum(shares[h] * update[name].double() for h, update in updates.items()) for name in names}
        return {ALL_HOSPITALS: {name: torch.as_tensor(value) for name, value in total.items()}}

    def _global(self, number: int) -> Weights:
        return read_weights(RunFolder(self.folder).checkpoint_file(number))

    def _update(self, number: int, hospital: str) -> Weights:
        return read_weights(RunFolder(self.folder).update_file(number, hospital))


@dataclass(frozen=True)
class PlayedGames:
    """Games with their truth.

    Attributes:
        played: A hospital's games each.
        seconds: How long it took.
    """

    played: tuple[Played, ...]
    seconds: float


def games_tasks(
    prepared: Prepared,
    training: SimulatedTraining,
    folder: RunFolder,
    adversary: AdversaryConfig,
    surface: Surface,
    rounds: Mapping[str, Sequence[int]],
) -> list[GamesTask]:
    """The tasks of one surface: one a hospital where hospitals are seen one by one.

    Args:
        prepared: The run.
        training: The federation.
        folder: What was recorded.
        adversary: Whose records are targets, and how many.
        surface: What is seen.
        rounds: By hospital whose records are attacked, the training rounds that are seen of it, at least one; the same
            for all where only their mean is seen.
    """
    if not rounds:
        return []
    attacked = list(adversary.hospitals) or [plan.name for plan in prepared.plans]
    games = {name: _game(prepared, adversary, name, share_of=len(attacked)) for name in rounds}
    at_once = surface == "global_model" and adversary.only_last_model
    corrected = _corrected(training, folder)
    if surface in ("aggregate", "global_model"):
        # Whoever sees the last model alone knows the first one, too: everybody can compute that.
        seen = range(1, prepared.hyper.rounds + 1) if at_once else next(iter(rounds.values()))
        summed = prepared.config.federation.secure_aggregation
        return [GamesTask(training, surface, games, folder.path, tuple(seen), at_once, summed=summed)]
    return [
        GamesTask(training.alone(name), surface, {name: game}, folder.path, tuple(rounds[name]), False, corrected)
        for name, game in games.items()
    ]


def _corrected(training: SimulatedTraining, folder: RunFolder) -> RecordedRounds | None:
    """Where to learn what was added to gradients; None where nothing was."""
    if training.local.correction == NO_CORRECTION:
        return None
    return RecordedRounds(
        observations=folder.observations,
        shares={plan.name: share for plan, share in zip(training.plans, training.shares, strict=True)},
        silent=folder.failed(),
        local=training.local,
        rounds=training.rounds,
        local_steps=training.local_steps,
    )


def _game(
    prepared: Prepared, adversary: AdversaryConfig, hospital: str, *, share_of: int
) -> tuple[CandidateGame, Records]:
    """One hospital's draws, and decoys from test records: of its own scanner, if there are enough.

    Where the unit is a patient, decoys are patients with all of their test records, of the same scanner.
    """
    index = [plan.name for plan in prepared.plans].index(hospital)
    held, test = prepared.plans[index].num_units, prepared.federated.test
    # Equal numbers for the records of one decoy.
    by_patient = prepared.local.records_per_patient is not None
    decoys = test.groups if by_patient and test.groups is not None else torch.arange(len(test))
    targets = min(held, math.ceil(adversary.targets / share_of))
    wanted = max(adversary.candidates - 1, targets)
    federated = prepared.federated
    sites = torch.tensor(federated.hospitals[index].sites)
    own = torch.isin(federated.test_site, sites).nonzero().flatten()
    rows = own if len(decoys[own].unique()) >= wanted else torch.arange(len(test))
    source = decoys[rows].unique()
    stream = generator(prepared.config.seed, "audit", hospital, "candidates")
    pool = source[torch.randperm(len(source), generator=stream)[:wanted]]
    chosen = rows[torch.isin(decoys[rows], pool)] if by_patient else pool
    game = draw_game(records=held, pool=len(pool), targets=targets, candidates=adversary.candidates, generator=stream)
    return game, test.select(chosen)
