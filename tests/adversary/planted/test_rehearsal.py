"""Trying attacks out on public images, and what an attack of many pixels holds in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hbdp_fed.adversary.imprint import ImprintAttack, ImprintDesign, craft_model
from hbdp_fed.adversary.imprint.reading import read_records
from hbdp_fed.adversary.planted.campaign import is_planted
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.planted.rehearsal import Means, Stage, cast_roles, planted_share, set_stage
from hbdp_fed.adversary.trap_weights import TrapWeightsAttack
from hbdp_fed.dpsgd import plain_summer
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import PublicSideInformation
from tests.adversary.attacking import attacked, stream

MEANS = Means(rank=8, max_physical_batch=16, device="cpu")
DESIGN = ImprintDesign(bins=64, loudness=Loudness(100.0))


def stage_of(world, public: PublicSideInformation, *, seed: int = 0) -> Stage:
    return set_stage(world.base, world.weights, public, read=read_records, means=MEANS, generator=stream(seed))


def test_whoever_plays_the_hospital_is_unknown_to_the_adversary_in_the_rehearsal(world) -> None:
    cast = cast_roles(world.base, world.weights, world.public(), stream(0))
    known, played = ({image.numpy().tobytes() for image in part} for part in (cast.side_information, cast.stand_ins))
    everyone = {image.numpy().tobytes() for image in world.public_images}
    assert not known & played
    assert known | played == everyone
    assert len(known) == len(everyone) // 2
    other = cast_roles(world.base, world.weights, world.public(), stream(1))
    assert not torch.equal(other.stand_ins, cast.stand_ins)


def test_the_stand_ins_have_the_bases_own_predictions_for_labels(world) -> None:
    cast = cast_roles(world.base, world.weights, world.public(), stream(0))
    base = build_model(world.base)
    load_weights(base, world.weights)
    with torch.no_grad():
        assert torch.equal(cast.labels, base(cast.stand_ins).argmax(dim=1))


@pytest.mark.parametrize(
    ("expected_batch", "batch", "batches"), [(0.2, 1, 4), (8.0, 8, 4), (25.4, 25, 2), (1000.0, 60, 1)]
)
def test_a_rehearsed_batch_is_as_large_as_expected_if_there_are_as_many(
    world, expected_batch: float, batch: int, batches: int
) -> None:
    cast = cast_roles(world.base, world.weights, world.public(expected_batch=expected_batch), stream(0))
    parts = cast.batches(4)
    assert cast.batch == batch
    assert [len(cast.labels[part]) for part in parts] == [batch] * batches
    assert len({place for part in parts for place in range(60)[part]}) == batch * batches


@pytest.mark.parametrize("gain", [1e-2, 1.0, 1e2])
def test_the_share_is_that_of_the_norms_of_each_records_gradient(world, gain: float) -> None:
    planted = craft_model(world.base, world.weights, world.public_images, replace(DESIGN, loudness=Loudness(gain)))
    images, labels = world.private_images[:6], torch.tensor([0, 1, 0, 1, 0, 1])
    model = build_model(planted[0])
    load_weights(model, planted[1])
    summer = plain_summer(model, max_physical_batch=1)
    shares = []
    for image, label in zip(images, labels, strict=True):
        total = summer(image[None], label[None]).total
        squared = {name: float(value.double().square().sum()) for name, value in total.items()}
        part = sum(value for name, value in squared.items() if name.startswith("planted."))
        shares.append(math.sqrt(part / sum(squared.values())))
    assert planted_share(*planted, images, labels) == pytest.approx(sum(shares) / 6, rel=1e-4)


def test_a_record_without_any_gradient_has_no_share(world) -> None:
    architecture, weights = craft_model(world.base, world.weights, world.public_images, DESIGN)
    silent = {name: torch.zeros_like(value) for name, value in weights.items()}
    args = {**architecture.args, "base_scale": 0.0}
    labels = torch.tensor([0, 1])
    assert planted_share(replace(architecture, args=args), silent, world.private_images[:2], labels) == 0


def test_without_noise_a_rehearsal_succeeds_and_in_much_noise_it_fails(world) -> None:
    planted = craft_model(world.base, world.weights, world.public_images, DESIGN)
    quiet, loud = (stage_of(world, world.public(sigma=sigma)).rehearse(*planted, stream(1)) for sigma in (0.0, 3.0))
    assert quiet.ssim > 0.8
    assert quiet.denoise
    assert loud.ssim < 0.2
    assert quiet.share == loud.share > 0.99


def test_a_rehearsal_is_decided_by_its_generator_alone(world) -> None:
    planted = craft_model(world.base, world.weights, world.public_images, DESIGN)
    stage = stage_of(world, world.public(sigma=0.05))
    same, again, other = (stage.rehearse(*planted, stream(seed)) for seed in (1, 1, 2))
    assert same == again != other


@pytest.mark.parametrize("saturating", [True, False])
def test_a_planted_model_is_known_by_whether_its_rows_saturate(world, saturating: bool) -> None:
    architecture, _ = craft_model(world.base, world.weights, world.public_images, DESIGN)
    plain = replace(architecture, args={**architecture.args, "ceiling": None})
    assert is_planted(architecture, saturating=saturating) == saturating
    assert is_planted(plain, saturating=saturating) != saturating
    assert not is_planted(world.base, saturating=saturating)


class LargestTensor(TorchDispatchMode):
    """How many elements the largest tensor has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.element_size()
            for leaf in tree_leaves(result)
            if isinstance(leaf, Tensor)
        ]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("attack", [ImprintAttack, TrapWeightsAttack], ids=lambda kind: kind.name)
@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_nothing_is_as_large_as_the_square_of_the_pixels(world_maker, attack: Any, sigma: float) -> None:
    size, rows = 32, 24
    world = world_maker(channels=3, size=size)
    pixels = 3 * size**2
    with LargestTensor() as largest:
        attacked(
            attack(bins=rows, rank=8, whitenings=(0.25,), gains=(1e2,), max_physical_batch=4),
            world,
            world.private_images[:4],
            sigma=sigma,
        )
    # The layer itself, the public images' coefficients, the images that are compared: a few hundred times the pixels.
    assert pixels * rows <= largest.elements < pixels**2 / 4
