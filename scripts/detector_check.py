"""Hold the attack of the worst case against the best detector that there can be.

    python scripts/detector_check.py --games 4000 --candidates 64 --steps 4
    python scripts/detector_check.py --steps 6 --sample-rate 0.3 --sigmas 0.3 0.5 1

Every record and every decoy is an image of one pixel of its own. The linear probe's gradient for such a record is that
pixel times a factor, far above the clipping norm: the candidates' clipped gradients are orthogonal and of full length,
which is the case that theory solves exactly. The hospitals run their real steps, and the audit plays its real games.

Prints two tables as Markdown: how often the right one of K candidates was named, beside what the best possible detector
scores there and what no candidates whatever allow; and how often a record was told from outsiders, beside the power of
the most powerful test. Every game has candidates of its own and so noise of its own: the intervals are exact.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence

import torch

from hbdp_fed.adversary.worst_case import CandidateMatching, MembershipInference
from hbdp_fed.audit.candidates import (
    CandidateGame,
    IdentificationFigures,
    MembershipFigures,
    Played,
    identification_figures,
    membership_figures,
    play_rounds,
    play_steps,
)
from hbdp_fed.audit.replay import SimulatedTraining, replay_round
from hbdp_fed.data import Records
from hbdp_fed.seeding import generator, stream_seed
from hbdp_fed.training import LocalSettings, LocalStep
from hbdp_fed.types import DpSgdParams, HospitalPlan, ModelSpec, OptimizerSettings, Surface, Weights

PIXELS = 1024
"""About how many an image has: a hospital plays as many games as have pixels for all their candidates."""

GAIN = 4.0
"""Of the probe: gradients of norm 2, twice the clipping norm."""

LEARNING_RATE = 1e-3
"""So small that the probe's weights, and with them the gradients' norms, hardly move."""

DISTANCES = (0.5, 1.5, 2.5, 3.5, 5.0)
"""sqrt(T)/sigma of the default noise multipliers: from nearly nothing to nearly everything."""

MEMBERSHIP_LEVEL = 0.01
HOSPITAL = "hospital"


def one_pixel_records(count: int, *, first: int, side: int, stream: torch.Generator) -> Records:
    """``count`` images of side x side pixels, all black but for one pixel each, from number ``first`` on."""
    images = torch.zeros(count, side * side)
    images[torch.arange(count), first + torch.arange(count)] = 1.0
    labels = torch.randint(2, (count,), generator=stream)
    return Records(images=images.view(count, 1, side, side), labels=labels)


def play_hospital(
    mechanism: DpSgdParams,
    *,
    candidates: int,
    local_steps: int = 1,
    momentum: float = 0.0,
    surface: Surface = "gradient",
    seed: int,
) -> Played:
    """Train a hospital of one-pixel records, and play one game for each record, with decoys that no other game has.

    Args:
        mechanism: The hospital's, with a clipping norm of 1; its steps are a multiple of ``local_steps``.
        candidates: K, at least 2.
        local_steps: Steps of a round.
        momentum: Of the optimiser, plain SGD.
        surface: ``gradient`` or ``update``.
        seed: Of everything.
    """
    games = max(1, PIXELS // candidates)
    side = math.ceil(math.sqrt(games * candidates))
    records, pool = (
        one_pixel_records(count, first=first, side=side, stream=generator(seed, "labels", first))
        for count, first in ((games, 0), (games * (candidates - 1), games))
    )
    rounds = mechanism.steps // local_steps
    training = SimulatedTraining(
        seed=seed,
        architecture=ModelSpec(
            "linear_probe", {"in_channels": 1, "num_classes": 2, "image_size": [side, side], "gain": GAIN}
        ),
        local=LocalSettings(
            optimizer=OptimizerSettings("sgd", LEARNING_RATE, momentum), max_physical_batch=games * candidates
        ),
        rounds=rounds,
        local_steps=local_steps,
        plans=(HospitalPlan(HOSPITAL, games, mechanism, eps_rdp=math.inf),),
        records=(records,),
        shares=(1.0,),
        device=torch.device("cpu"),
    )
    game = CandidateGame(
        targets=torch.arange(games),
        decoys=torch.arange(games * (candidates - 1)).view(games, candidates - 1),
        truth=torch.randint(candidates, (games,), generator=generator(seed, "truth")),
    )
    sent = sent_by(training, {"probe.weight": torch.zeros(1, side * side, dtype=torch.float64)})
    if surface == "gradient":
        return play_steps(training, HOSPITAL, sent, game, pool)
    releases: dict[tuple[int, ...], tuple[Weights, dict[str, Weights]]] = {
        (number,): (before, {HOSPITAL: update}) for number, (before, update) in sent.items()
    }
    return play_rounds(training, surface, releases, {HOSPITAL: (game, pool)})[0]


def sent_by(training: SimulatedTraining, weights: Weights) -> dict[int, tuple[Weights, Weights]]:
    """By round, what a federation's only hospital received and what it sent."""

    def ignore(step: LocalStep) -> None:
        pass

    sent = {}
    for number in range(1, training.rounds + 1):
        update = replay_round(training, 0, number, weights, watch=ignore).delta
        sent[number] = (weights, update)
        weights = {name: value + update[name] for name, value in weights.items()}
    return sent


def play_many(
    mechanism: DpSgdParams,
    *,
    games: int,
    candidates: int,
    local_steps: int = 1,
    momentum: float = 0.0,
    surface: Surface = "gradient",
    seed: int,
) -> list[Played]:
    """As many hospitals, each with a seed of its own, as it takes for at least this many games.

    The other arguments are those of :func:`play_hospital`.
    """
    hospitals = math.ceil(games / max(1, PIXELS // candidates))
    return [
        play_hospital(
            mechanism,
            candidates=candidates,
            local_steps=local_steps,
            momentum=momentum,
            surface=surface,
            seed=stream_seed(seed, "hospital", number),
        )
        for number in range(hospitals)
    ]


def identification(played: Sequence[Played], *, seed: int) -> IdentificationFigures:
    """How often the attack was right."""
    return identification_figures(CandidateMatching(), "gradient", played, generator(seed, "lots"))


def membership(played: Sequence[Played]) -> MembershipFigures:
    """How often the attack told a record from outsiders."""
    return membership_figures(MembershipInference(), "gradient", played, level=MEMBERSHIP_LEVEL)


def identification_table(figures: Sequence[tuple[float, IdentificationFigures]]) -> Iterator[str]:
    """The lines of the first table.

    Args:
        figures: By noise multiplier, in the order of the rows.
    """
    yield "| sigma | named | 95% interval | standard error | best detector | bound (ReRo) | games |"
    yield "|---|---|---|---|---|---|---|"
    for sigma, found in figures:
        rate, interval, optimal = found.success_rate, found.success_rate_ci95, found.optimal
        if rate is None or interval is None or optimal is None:
            continue
        error = math.sqrt(rate * (1 - rate) / found.records)
        yield (
            f"| {sigma:.4g} | {rate:.4f} | {interval[0]:.4f} to {interval[1]:.4f} | {error:.4f} | {optimal:.4f} "
            f"| {found.bound:.4f} | {found.records} |"
        )


def membership_table(figures: MembershipFigures) -> Iterator[str]:
    """The lines of the second table."""
    yield "| level | false positives | true positives | 95% interval | most powerful test | records | outsiders |"
    yield "|---|---|---|---|---|---|---|"
    for point in figures.points:
        low, high = point.true_positive_rate_ci95
        yield (
            f"| {point.level:g} | {point.false_positive_rate:.4g} | {point.true_positive_rate:.4f} "
            f"| {low:.4f} to {high:.4f} | {point.bound:.4f} | {figures.records} | {figures.outsiders} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=4000, help="at each noise multiplier, at least")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sample-rate", type=float, default=1.0)
    parser.add_argument("--sigmas", nargs="+", type=float, help="noise multipliers instead of the default ones")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def play(position: int, sigma: float) -> list[Played]:
        mechanism = DpSgdParams(sigma, max_grad_norm=1.0, sample_rate=given.sample_rate, steps=given.steps)
        # Noise of its own for every row.
        seed = stream_seed(given.seed, "row", position)
        return play_many(mechanism, games=given.games, candidates=given.candidates, seed=seed)

    sigmas = given.sigmas or [math.sqrt(given.steps) / distance for distance in DISTANCES]
    played = [(sigma, play(position, sigma)) for position, sigma in enumerate(sigmas)]
    print(f"{given.candidates} candidates, {given.steps} steps, sample rate {given.sample_rate:g}\n")
    figures = [(sigma, identification(hospitals, seed=given.seed)) for sigma, hospitals in played]
    print("\n".join(identification_table(figures)))
    sigma, hospitals = played[len(played) // 2]
    print(f"\nMembership at sigma {sigma:.4g}\n")
    print("\n".join(membership_table(membership(hospitals))))


if __name__ == "__main__":
    main()
