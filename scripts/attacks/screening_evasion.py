"""Measure what it costs a malicious server to get past a hospital's check of the models that it receives.

    python -m scripts.attacks.screening_evasion --seeds 2

The hospitals agreed to an architecture with a layer on the image, so that its structure says nothing, and the server
knows the check: it calibrates one of its own, on its own public images and with its own seed, and tries disguises
(:mod:`scripts.attacks.disguises`) until one passes. The strongest that does, on public stand-ins, is sent to a hospital
with the real mechanism. The table compares it with the attack as it is where nobody checks. The exit code is 0.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary import REALISTIC, build_attack
from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, record_loss, seeded_noise
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.screening import References, Screen
from hbdp_fed.seeding import generator
from hbdp_fed.types import DpSgdParams, ModelSpec, ModelUpdate, Observation, Weights
from scripts.attacks.disguises import AFTER, DESIGNS, ROWS, Design, agreed_architecture, disguised, reconstructed
from scripts.attacks.screened_worlds import World
from scripts.attacks.screening import side_information

BUDGETS = (math.inf, 1e12, 1e9)
SUCCESS, BATCHES, BATCH = 0.8, 3, 12
_CLOSE = 0.6
"""The server stays so far within its own check's limits: the hospital's was calibrated on other draws."""


def hospital_sum(
    architecture: ModelSpec, weights: Weights, images: Tensor, labels: Tensor, mechanism: DpSgdParams, seed: int
) -> Weights:
    """One honest step on these records: the noisy clipped sum."""
    model = build_model(architecture)
    load_weights(model, weights)
    summer = make_summer(model.train(), mechanism, max_physical_batch=16, loss=record_loss("cross_entropy"))
    noise = seeded_noise(torch.Generator().manual_seed(seed))
    step = dp_sgd_gradient(summer, images, labels, mechanism=mechanism, expected_batch=1.0, noise=noise)
    return step.gradient


def similarities(images: Tensor, originals: Tensor) -> Tensor:
    """Each original's best SSIM with anything that came back; 0 where nothing did."""
    if not len(images):
        return torch.zeros(len(originals))
    best = []
    for original in originals:
        found = structural_similarity_index_measure(
            images, original.expand_as(images), data_range=1.0, reduction="none"
        )
        assert isinstance(found, Tensor)
        best.append(found.max().clamp(min=0.0))
    return torch.stack(best)


def batches_of(images: Tensor, labels: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Disjoint batches, with their numbers."""
    for number in range(BATCHES):
        part = slice(number * BATCH, (number + 1) * BATCH)
        yield number, images[part], labels[part]


def plain_attack(name: str, world: World, base: Weights) -> Tensor:
    """Each record's similarity where nobody checks."""
    attack, public = build_attack(name, bins=ROWS), side_information(world)
    architecture, weights = attack.craft(
        world.architecture, base, public, generator(world.seed, "evasion", name, "craft")
    )
    found = []
    for number, images, labels in batches_of(*world.hospitals()[0]):
        total = hospital_sum(architecture, weights, images, labels, public.mechanism, seed=number)
        rate = public.optimizer.learning_rate / public.expected_batch
        delta = {key: -rate * value for key, value in total.items()}
        seen = Observation(REALISTIC, architecture, weights, ModelUpdate("hospital", 1, delta, BATCH), public)
        result = attack.reconstruct(seen, generator(world.seed, "evasion", name, number))
        found.append(similarities(result.images, images))
    return torch.cat(found)


@dataclass(frozen=True)
class Evasion:
    """What was sent.

    Attributes:
        design: The strongest that passed the server's own check, or the one that came closest.
        passed: Whether the hospital's check lets it through.
        flags: By which measures it does not.
        similarity: Each record's.
    """

    design: Design
    passed: bool
    flags: tuple[str, ...]
    similarity: Tensor


def evade(family: str, world: World, base: Weights, own: Screen, hospital: Screen) -> Evasion:
    """Search on public images, then attack."""
    public, architecture = side_information(world), agreed_architecture(world)
    # What the hospital tries models on is public, and so no secret.
    stand_ins, known = public.images[-BATCH:], replace(public, images=public.images[:-BATCH])
    labels = torch.arange(BATCH) % 2
    tried: list[tuple[bool, float, Design, Weights]] = []
    for design in DESIGNS[family]:
        weights = disguised(world, base, known.images, design, generator(world.seed, "evasion", family))
        worst = max(own.examine(architecture, weights).figures.values())
        answer = hospital_sum(architecture, weights, stand_ins, labels, public.mechanism, seed=99)
        score = float(similarities(reconstructed(world, weights, answer, design, known), stand_ins).mean())
        tried.append((worst < _CLOSE, score if worst < _CLOSE else -worst, design, weights))
    _, _, design, weights = max(tried, key=lambda one: one[:2])
    found = []
    for number, images, truth in batches_of(*world.hospitals()[0]):
        answer = hospital_sum(architecture, weights, images, truth, public.mechanism, seed=number)
        found.append(similarities(reconstructed(world, weights, answer, design, public), images))
    verdict = hospital.examine(architecture, weights)
    return Evasion(design, not verdict.flagged, verdict.measures, torch.cat(found))


def told(values: Tensor) -> str:
    """Mean similarity and success rate."""
    return f"{float(values.mean()):.2f} / {float((values > SUCCESS).double().mean()):.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--datasets", nargs="+", default=["phantom", "pneumoniamnist"])
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS), choices=BUDGETS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("Mean best SSIM / share of records above 0.8, of one hospital's batches.\n")
    print("| data | seed | eps | attack | nobody checks | disguised | passes the check | design |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for seed in range(options.seeds):
        for dataset in options.datasets:
            for eps in options.budgets:
                world = World(dataset, "cnn", eps, rounds=3, seed=seed)
                for line in compared(world):
                    print(line, flush=True)
    return 0


def compared(world: World) -> Iterator[str]:
    """The table's lines of one federation."""
    base, architecture = list(world.global_models())[-1], agreed_architecture(world)
    references = world.references
    others = References(world.public_images[100 : 100 + len(references.images)], references.labels)
    own, hospital = (
        Screen.calibrated(architecture, world.training, images, seed=seed, agreed=architecture)
        for images, seed in ((others, 1_000 + world.seed), (references, 2_000 + world.seed))
    )
    for family, attack in AFTER.items():
        before, after = plain_attack(attack, world, base), evade(family, world, base, own, hospital)
        passes = "yes" if after.passed else f"no: {', '.join(after.flags)}"
        yield (
            f"| {world.dataset} | {world.seed} | {world.eps:g} | {attack} | {told(before)} | {told(after.similarity)} "
            f"| {passes} | {after.design} |"
        )


if __name__ == "__main__":
    raise SystemExit(main())
