"""Measure what it costs a malicious server to get past a hospital's check of the models that it receives.

    python -m scripts.attacks.screening_evasion --seeds 2

The hospitals agreed to an architecture with a layer on the image, so that its structure says nothing, and the server
knows the check: it calibrates one of its own, on its own public images and with its own seed, and tries designs until
one passes. Two families of designs, after the two attacks:

``ladder``: an imprint layer as Fowl et al. (2021, arXiv 2110.13057) first had it. Every row is active above its own
cut of one measurement, so that rows overlap as honest ones do, and the difference of neighbouring rows holds one bin.
Only a part of each row measures. The rest is camouflage: random, and orthogonal to all public images, so that rows are
as different as honest ones and no image notices. The measurement is chosen small enough for small biases.

``traps``: random rows that each record activates with a larger probability than trap weights would have.

In both, values have the size of honest ones, no two are equal, and the readout is only as loud as the check allows. The
strongest design that passes, on public stand-ins, is sent to a hospital with the real mechanism. The table compares it
with the attack as it is where nobody checks. The exit code is 0.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary import REALISTIC, build_attack
from hbdp_fed.adversary.imprint.reading import detect
from hbdp_fed.adversary.planted.code import Code, coefficients_of, fit_code, read_code
from hbdp_fed.adversary.planted.crafting import MODEL, class_voices
from hbdp_fed.adversary.planted.decoding import Measured, rebuild, settle_factors
from hbdp_fed.adversary.planted.evidence import Expectation, expect
from hbdp_fed.adversary.planted.gradient import PlantedGradient, planted_gradient
from hbdp_fed.adversary.prior import fit_prior
from hbdp_fed.adversary.trap_weights.reading import read_records as read_traps
from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, record_loss, seeded_noise
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.screening import References, Screen
from hbdp_fed.seeding import generator
from hbdp_fed.types import DpSgdParams, ModelSpec, ModelUpdate, Observation, PublicSideInformation, Weights
from scripts.attacks.screened_worlds import World
from scripts.attacks.screening import side_information

BUDGETS = (math.inf, 1e12, 1e9)
ROWS, RANK, JITTER, SUCCESS = 64, 64, 1e-4, 0.8
BATCHES, BATCH = 3, 12
_CLOSE = 0.8
"""The server stays so far within its own check's limits: the hospital's was calibrated on other draws."""


@dataclass(frozen=True)
class Design:
    """One way to get past the check.

    Attributes:
        family: ``ladder`` or ``traps``.
        gain: The readout's magnitude, over the standard deviation of fresh values.
        measuring: ``ladder``: which share of a row's squared norm measures.
        component: ``ladder``: which principal component of the public images is measured; later ones vary less.
        activation: ``traps``: with which probability a record activates a row.
    """

    family: str
    gain: float
    measuring: float = 0.1
    component: int = 8
    activation: float = 0.4


DESIGNS: Mapping[str, Sequence[Design]] = {
    "ladder": [
        Design("ladder", gain, measuring=measuring, component=component)
        for gain in (5.0, 1.0)
        for measuring in (0.2, 0.05)
        for component in (4, 12, 30, 60)
    ],
    "traps": [Design("traps", gain, activation=share) for gain in (5.0, 1.0) for share in (0.2, 0.35, 0.5, 0.65)],
}
AFTER = {"ladder": "imprint", "traps": "trap_weights"}
"""Which attack each family is a disguise of."""


def agreed_architecture(world: World) -> ModelSpec:
    """The base with a ReLU layer on the image beside it."""
    args = {
        "base": {"name": world.model, "args": dict(world.architecture.args)},
        "in_channels": 1,
        "num_classes": 2,
        "image_size": [28, 28],
        "rows": ROWS,
        "ceiling": None,
        "base_scale": 1.0,
    }
    return ModelSpec(MODEL, args)


def disguised(world: World, base: Weights, images: Tensor, design: Design, stream: torch.Generator) -> Weights:
    """Weights of the agreed architecture that trap records and look honest."""
    code = fit_code(images, whitening=0.0, centred=False)
    seen = code.encode(images)
    rows, bias = LAYERS[design.family](seen, design, stream)
    fresh = initial_weights(build_model(agreed_architecture(world)), stream)
    # Signs that alternate keep the layer out of the logits; who knows them takes them off the gradient again.
    loud = design.gain * math.sqrt(2 / ROWS) * signs() * (1 + JITTER * torch.randn(ROWS, generator=stream))
    return {
        **fresh,
        **{f"base.{name}": value for name, value in base.items()},
        **code.to_weights(),
        "planted.weight": rows.float(),
        "planted.bias": bias.float(),
        "readout.weight": class_voices(2)[:, None] * loud,
    }


def signs() -> Tensor:
    """What the readout multiplies rows by, float32 (rows,)."""
    return torch.where(torch.arange(ROWS) % 2 == 0, 1.0, -1.0)


def ladder(seen: Tensor, design: Design, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows that measure one component and hide it in directions that no public image has; ascending cuts."""
    centred = seen - seen.mean(dim=0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[design.component]
    unseen = torch.linalg.svd(seen, full_matrices=True).Vh[_rank(seen) :]
    hiding = torch.randn(ROWS, len(unseen), generator=stream, dtype=torch.float64) @ unseen
    hiding = hiding / hiding.norm(dim=1, keepdim=True)
    # As long as fresh rows (He et al. 2015).
    rows = math.sqrt(2) * (math.sqrt(design.measuring) * direction + math.sqrt(1 - design.measuring) * hiding)
    levels = seen @ direction
    cuts = torch.quantile(levels, torch.arange(ROWS, dtype=torch.float64) / ROWS)
    cuts[0] -= levels.std()
    return rows, -math.sqrt(2 * design.measuring) * cuts


def _rank(seen: Tensor) -> int:
    """How many directions public images have, and a few less than all, so that some are left."""
    return min(len(seen), seen.shape[1] - 2 * ROWS)


def traps(seen: Tensor, design: Design, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random rows that see nothing of the mean image, each active for the same share of public images."""
    rows = torch.randn(ROWS, seen.shape[1], generator=stream, dtype=torch.float64) * math.sqrt(2 / seen.shape[1])
    mean = seen.mean(dim=0)
    rows -= (rows @ mean)[:, None] * mean / mean.square().sum()
    return rows, -torch.quantile(seen @ rows.T, 1 - design.activation, dim=0)


LAYERS: Mapping[str, Callable[[Tensor, Design, torch.Generator], tuple[Tensor, Tensor]]] = {
    "ladder": ladder,
    "traps": traps,
}


def read_ladder(gradient: PlantedGradient, expectation: Expectation) -> Measured:
    """The difference of each row and the next one holds the records between their cuts."""
    rows = gradient.rows - torch.cat([gradient.rows[1:], torch.zeros_like(gradient.rows[:1])])
    bias = gradient.bias - torch.cat([gradient.bias[1:], torch.zeros(1, dtype=torch.float64)])
    std = math.sqrt(2) * gradient.noise_std
    found, scores = detect(PlantedGradient(rows, bias, std), replace(expectation, activity=1 / ROWS))
    order = found[torch.argsort(scores[found], descending=True, stable=True)]
    precision = torch.full_like(bias[order], 1 / std**2 if std else math.inf)
    return Measured(
        codes=rows[order],
        # A record activates all rows up to its own.
        factors=settle_factors(bias[order], precision, (order + 1).double(), expectation),
        noise_std=torch.full_like(bias[order], std),
        scores=scores[order],
        members=torch.nn.functional.one_hot(order, ROWS).bool(),
    )


def reconstructed(
    world: World, weights: Weights, answer: Weights, design: Design, public: PublicSideInformation
) -> Tensor:
    """What the server makes of a hospital's noisy sum."""
    architecture = agreed_architecture(world)
    gradient = planted_gradient(answer, public.mechanism)
    gradient = replace(gradient, rows=gradient.rows * signs()[:, None], bias=gradient.bias * signs())
    expectation = expect(architecture.args, weights, public.images, public)
    measured = (
        read_ladder(gradient, expectation)
        if design.family == "ladder"
        else read_traps(gradient, architecture.args, weights, expectation)
    )
    code: Code = read_code(architecture.args, weights)
    prior = fit_prior(coefficients_of(public.images), rank=RANK)
    return rebuild(measured, code, prior, denoise=public.mechanism.noise_multiplier > 0)


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
