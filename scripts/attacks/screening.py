"""Measure how often a hospital's check of the models that it receives is right: on honest training, and on probes.

    python -m scripts.attacks.screening honest --rounds 20 --seeds 2
    python -m scripts.attacks.screening probes --seeds 2

``honest``: small federations of every architecture train at budgets of 8, 1e9 and inf on the phantom and, unless they
segment, on PneumoniaMNIST. A hospital calibrates its check before training; then it examines the global model of every
round, from the fresh weights to the released ones. Every model that it flags is a false alarm. Models of one training
resemble each other, so that trainings with any false alarm are counted beside them.

``probes``: imprint, trap weights and LOKI craft their models, by their own search, around a model that was trained for
a few rounds. The check is asked three times. A hospital that agreed to the base model has a structure to compare with.
One that agreed to nothing looks for a planted layer. And the strictest: hospitals agreed to an architecture *with* the
planted layer in it, so that the structure says nothing and only weights and gradients tell, calibrated on that
architecture's own fresh weights. For this one the table says which measure alone would have caught how many.

Intervals are exact (Clopper and Pearson 1934), at 95%. The exit code is 0.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from hbdp_fed.adversary import ATTACKS, build_attack, public_of_mean
from hbdp_fed.screening import MEASURES, STRUCTURE, Screen, Verdict, structural_problems
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec, PublicSideInformation, Weights
from scripts.attacks.screened_worlds import ARCHITECTURES, EXPECTED_BATCH, World, honest_worlds

PROBED_MODELS, PROBED_BUDGETS = ("cnn", "resnet9"), (8.0, 1e9, math.inf)
ATTACKED_WITH = ("imprint", "trap_weights", "loki")
ROUNDS_BEFORE_PROBE = 3
LOKI_HOSPITALS = ("hospital-01", "hospital-02")


@dataclass(frozen=True)
class Probe:
    """A malicious model, as one hospital receives it.

    Attributes:
        attack: Who made it.
        world: Around whose base.
        architecture: Its architecture.
        weights: Its weights.
    """

    attack: str
    world: World
    architecture: ModelSpec
    weights: Weights

    def screen(self, *, agreed: ModelSpec) -> Screen:
        """A check that was calibrated on this architecture's fresh weights."""
        world = self.world
        return Screen.calibrated(
            self.architecture, world.training, world.references, seed=17 + world.seed, agreed=agreed
        )


def screen_of(world: World) -> Screen:
    """A hospital's check in an honest federation. Its seed is its own and no part of the training."""
    return Screen.calibrated(
        world.architecture, world.training, world.references, seed=10_007 + world.seed, agreed=world.architecture
    )


def honest_verdicts(world: World) -> list[Verdict]:
    """What the check says of every global model."""
    screen = screen_of(world)
    return [screen.examine(world.architecture, weights) for weights in world.global_models()]


def side_information(world: World) -> PublicSideInformation:
    """What a server knows of a hospital."""
    return PublicSideInformation(
        images=world.public_images,
        mechanism=world.plan.mechanism,
        optimizer=world.optimizer,
        expected_batch=EXPECTED_BATCH,
        loss=world.loss,
    )


def crafted(attack: str, world: World, *, bins: int) -> Probe:
    """The attack's model for a hospital, around the base as it is after some rounds."""
    base = list(world.global_models())[-1]
    stream = generator(world.seed, "screened", attack)
    public = side_information(world)
    if attack == "loki":
        shares = dict.fromkeys(LOKI_HOSPITALS, 1 / len(LOKI_HOSPITALS))
        mean = public_of_mean(dict.fromkeys(LOKI_HOSPITALS, public), shares)
        loki = build_attack(
            attack, shares=tuple(shares.values()), batches=(EXPECTED_BATCH,) * len(LOKI_HOSPITALS), bins=bins
        )
        architecture, weights = loki.craft(world.architecture, base, mean, stream)
        return Probe(attack, world, architecture, loki.for_hospital(weights, 0))
    return Probe(attack, world, *build_attack(attack, bins=bins).craft(world.architecture, base, public, stream))


def probed_worlds(seeds: int) -> Iterator[World]:
    """Where probes are sent."""
    for seed in range(seeds):
        for model in PROBED_MODELS:
            for dataset in ("phantom", "pneumoniamnist"):
                for eps in PROBED_BUDGETS:
                    yield World(dataset, model, eps, ROUNDS_BEFORE_PROBE, seed)


def interval(hits: int, trials: int) -> str:
    """A rate with its exact interval."""
    if not trials:
        return "none"
    found = binomtest(hits, trials).proportion_ci(0.95, "exact")
    return f"{hits}/{trials} = {hits / trials:.4f} [{found.low:.4f}, {found.high:.4f}]"


def measure_honest(options: argparse.Namespace) -> None:
    """The table of false alarms."""
    by_model: dict[str, list[bool]] = {}
    trainings: list[bool] = []
    alarms: Counter[str] = Counter()
    closest: dict[str, float] = {}
    for world in honest_worlds(rounds=options.rounds, seeds=options.seeds, first_seed=options.first_seed):
        if world.model not in options.models:
            continue
        started = time.perf_counter()
        verdicts = honest_verdicts(world)
        flags = [verdict.flagged for verdict in verdicts]
        by_model.setdefault(world.model, []).extend(flags)
        trainings.append(any(flags))
        alarms.update(name for verdict in verdicts for name in verdict.measures)
        for verdict in verdicts:
            closest.update({name: max(closest.get(name, 0.0), value) for name, value in verdict.figures.items()})
        told = f"{world.model} {world.dataset} eps={world.eps:g} seed {world.seed}"
        print(f"{told}: {sum(flags)} of {len(flags)} flagged, {time.perf_counter() - started:.0f} s", flush=True)
        for reason in {reason for verdict in verdicts for reason in verdict.reasons}:
            print(f"    {reason}", flush=True)
    print("\n| architecture | false alarms on honest models (exact 95% interval) |\n|---|---|")
    for model, flags in by_model.items():
        print(f"| {model} | {interval(sum(flags), len(flags))} |")
    everything = [flag for flags in by_model.values() for flag in flags]
    print(f"| all | {interval(sum(everything), len(everything))} |")
    print(f"| trainings with any | {interval(sum(trainings), len(trainings))} |")
    print("\n| measure | false alarms | closest to its limit (1 is at it) |\n|---|---|---|")
    for name in (STRUCTURE, *MEASURES):
        print(f"| {name} | {alarms[name]} | {closest.get(name, 0.0):.2f} |")


def measure_probes(options: argparse.Namespace) -> None:
    """The table of what is caught."""
    tried: Counter[str] = Counter()
    caught: Counter[tuple[str, str]] = Counter()
    for world in probed_worlds(options.seeds):
        if world.model not in options.models:
            continue
        for attack in options.attacks:
            started = time.perf_counter()
            probe = crafted(attack, world, bins=options.bins)
            images = world.references.images
            for way, agreed in (("base agreed", world.architecture), ("nothing agreed", None)):
                found = structural_problems(probe.architecture, probe.weights, images, agreed=agreed)
                caught[attack, way] += any(True for _ in found)
            verdict = probe.screen(agreed=probe.architecture).examine(probe.architecture, probe.weights)
            tried[attack] += 1
            caught[attack, "planted layer agreed"] += verdict.flagged
            caught.update((attack, name) for name in verdict.measures)
            told = f"{attack} around {world.model} {world.dataset} eps={world.eps:g} seed {world.seed}"
            print(f"{told}: {', '.join(verdict.measures)}; {time.perf_counter() - started:.0f} s", flush=True)
    ways = ("base agreed", "nothing agreed", "planted layer agreed")
    for title, rows in (("caught where", ways), ("planted layer agreed, by", tuple(MEASURES))):
        print(f"\n| {title} | {' | '.join(options.attacks)} |\n|---|{'---|' * len(options.attacks)}")
        for row in rows:
            print(f"| {row} | {' | '.join(interval(caught[a, row], tried[a]) for a in options.attacks)} |")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    honest = commands.add_parser("honest", help="false alarms")
    honest.add_argument("--rounds", type=int, default=20)
    honest.add_argument("--seeds", type=int, default=2)
    honest.add_argument("--first-seed", type=int, default=0)
    honest.add_argument("--models", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    honest.set_defaults(work=measure_honest)
    probes = commands.add_parser("probes", help="what is caught")
    probes.add_argument("--seeds", type=int, default=2)
    probes.add_argument("--models", nargs="+", default=list(PROBED_MODELS), choices=PROBED_MODELS)
    probes.add_argument("--bins", type=int, default=128)
    known = [name for name in ATTACKED_WITH if name in ATTACKS]
    probes.add_argument("--attacks", nargs="+", default=known, choices=known)
    probes.set_defaults(work=measure_probes)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.work(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
