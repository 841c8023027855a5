"""Layers that trap records and look honest: what a server that knows the check may send, and how it is read.

Two families, after the two attacks that plant a layer.

``ladder``: an imprint layer as Fowl et al. (2021, arXiv 2110.13057) first had it. Every row is active above its own
cut of one measurement, so that rows overlap as honest ones do, and the difference of neighbouring rows holds one bin.
Only a part of each row measures. The rest is camouflage: random, and orthogonal to all public images, so that rows are
as different as honest ones and no image notices. The measurement is chosen small enough for small biases.

``traps``: random rows that each record activates with a larger probability than trap weights would have.

In both, values have the size of honest ones, no two are equal, and the readout is only as loud as it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.reading import detect
from hbdp_fed.adversary.planted.code import Code, coefficients_of, fit_code, read_code
from hbdp_fed.adversary.planted.crafting import MODEL, class_voices
from hbdp_fed.adversary.planted.decoding import Measured, rebuild, settle_factors
from hbdp_fed.adversary.planted.evidence import Expectation, expect
from hbdp_fed.adversary.planted.gradient import PlantedGradient, planted_gradient
from hbdp_fed.adversary.prior import fit_prior
from hbdp_fed.adversary.trap_weights.reading import read_records as read_traps
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.types import ModelSpec, PublicSideInformation, Weights
from scripts.attacks.screened_worlds import World

ROWS, RANK, JITTER = 64, 64, 1e-4


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
