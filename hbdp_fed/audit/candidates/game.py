"""One hospital's games: which records are hidden among which candidates, and what the adversary then gets to see.

Where the unit of privacy is a patient, targets and candidates are patients with all of their records, and a gradient is
the clipped mean of those that a step takes. Below, a record is whatever the unit is.

Every target is a game of its own. The adversary of that game holds all the hospital's other records and K candidates:
the target, and decoys that were never trained on. It takes the other records' clipped gradients from a release, and
what is left is the noise and, where the release's steps drew the target, the target's gradient. All games of a hospital
share its real training: what is left differs from one to the next by the targets' own gradients alone, and is computed
so. The test suite holds that against games that are played one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.types import CandidateObservation, ThreatModel, Unit


@dataclass(frozen=True)
class CandidateGame:
    """What is drawn before anything is seen.

    Attributes:
        targets: int64 (M,), records of the hospital, ascending; or patients, by their place in the order of groups.
        decoys: int64 (M, K - 1), rows of the pool (or its patients, likewise), different ones within a game.
        truth: int64 (M,), where the target stands among its K candidates.
    """

    targets: Tensor
    decoys: Tensor
    truth: Tensor

    @property
    def candidates(self) -> int:
        """K."""
        return self.decoys.shape[1] + 1


def draw_game(*, records: int, pool: int, targets: int, candidates: int, generator: torch.Generator) -> CandidateGame:
    """Draw targets, their decoys and the order of the candidates.

    Args:
        records: How many the hospital holds.
        pool: How many decoys there are to choose from, at least K - 1.
        targets: M; the hospital's records, if it has fewer.
        candidates: K, at least 2.
        generator: A CPU generator.

    Raises:
        ValueError: if the pool is too small.
    """
    if candidates < 2 or pool < candidates - 1:
        raise ValueError(f"candidates must be from 2 to {pool + 1}, one more than there are decoys; got {candidates}")
    chosen = torch.randperm(records, generator=generator)[:targets].sort().values
    lots = torch.rand(len(chosen), pool, generator=generator)
    return CandidateGame(
        targets=chosen,
        decoys=lots.argsort(dim=1)[:, : candidates - 1],
        truth=torch.randint(candidates, (len(chosen),), generator=generator),
    )


@dataclass(frozen=True)
class Seen:
    """One release in inner products. M targets, D decoys of the pool, everything float64.

    Attributes:
        own: (M,), of each target's gradient with what is left in its own game.
        own_squared: (M,), squared norms.
        pool: (M, D), of each decoy's gradient with what is left in each game.
        pool_squared: (D,).
        outside: (D,), of each decoy's gradient with what is left when all records that were there are taken away.
        noise_variance: Of a coordinate of what is left.
        participation: See :class:`hbdp_fed.types.CandidateObservation`.
    """

    own: Tensor
    own_squared: Tensor
    pool: Tensor
    pool_squared: Tensor
    outside: Tensor
    noise_variance: float
    participation: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Played:
    """One hospital's games, ready for an adversary, with the truth beside them.

    Attributes:
        hospital: Whose.
        candidates: The games of M targets: what the adversary of each sees, projections (M, S, K).
        truth: int64 (M,), which candidate was trained on.
        members: What the adversary sees of M + D records, one candidate each: the targets, which were there, and the
            pool, which was not.
        was_there: bool (M + D,).
        noise_multiplier: sigma that protects the hospital's records on this surface.
        sample_rate: q.
        steps: T, the hospital's steps in all releases.
        unit: What candidates are.
    """

    hospital: str
    candidates: CandidateObservation
    truth: Tensor
    members: CandidateObservation
    was_there: Tensor
    noise_multiplier: float
    sample_rate: float
    steps: int
    unit: Unit = "record"


def observe(
    seen: Sequence[Seen], game: CandidateGame, threat_model: ThreatModel
) -> tuple[CandidateObservation, CandidateObservation]:
    """The games as the adversary sees them: naming the record among candidates, and telling whether one was there."""
    order = _candidate_order(game)
    naming = [_in_order(torch.cat([one.own[:, None], one.pool.gather(1, game.decoys)], dim=1), order) for one in seen]
    lengths = [
        _in_order(torch.cat([one.own_squared[:, None], one.pool_squared[game.decoys]], dim=1), order) for one in seen
    ]
    named = CandidateObservation(
        threat_model=threat_model,
        projections=torch.stack(naming, dim=1),
        squared_norms=torch.stack(lengths, dim=1),
        noise_variance=torch.tensor([one.noise_variance for one in seen], dtype=torch.float64),
        participation=[one.participation for one in seen],
    )
    alone = [torch.cat([one.own, one.outside]) for one in seen]
    alone_squared = [torch.cat([one.own_squared, one.pool_squared]) for one in seen]
    told = replace(
        named,
        projections=torch.stack(alone, dim=1)[..., None],
        squared_norms=torch.stack(alone_squared, dim=1)[..., None],
    )
    return named, told


def _candidate_order(game: CandidateGame) -> Tensor:
    """int64 (M, K): which of (target, decoys...) stands at each place, the target at its ``truth``."""
    places = torch.arange(game.candidates).expand(len(game.truth), -1)
    truth = game.truth[:, None]
    return torch.where(places == truth, 0, torch.where(places < truth, places + 1, places))


def _in_order(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(1, order)
