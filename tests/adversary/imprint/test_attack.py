"""The attack through the real DP-SGD step, with its positive and negative controls."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hbdp_fed.adversary.imprint import ImprintAttack, ImprintDesign, craft_model
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.types import Attack, ModelSpec, OptimizerSettings
from tests.adversary.attacking import attacked, best_ssim, ssim, stream

ATTACK = ImprintAttack(bins=128, rank=16)


def test_positive_control_one_record_without_noise_comes_back(world, clip: float) -> None:
    result = attacked(ATTACK, world, world.private_images[:1], clip=clip)
    assert len(result.images) == 1
    assert best_ssim(result, world.private_images[0]) >= 0.95


@pytest.mark.parametrize("label", [0, 1])
def test_the_sign_of_the_image_does_not_depend_on_the_label(world, label: int) -> None:
    result = attacked(ATTACK, world, world.private_images[:1], labels=torch.tensor([label]))
    torch.testing.assert_close(result.images[0], world.private_images[0], rtol=0, atol=1e-3)


def test_a_batch_comes_back_record_by_record(world, clip: float) -> None:
    images = world.private_images[:8]
    result = attacked(ATTACK, world, images, clip=clip)
    assert sum(best_ssim(result, image) >= 0.95 for image in images) >= 6


@pytest.mark.parametrize("sigma", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerSettings("sgd", 0.05, 0.9, weight_decay=1e-2),
        OptimizerSettings("nadam", 2e-3, 0.9),
        OptimizerSettings("nadam", 1e-5, 0.9, weight_decay=1e-2),
        OptimizerSettings("adamw", 1e-3, 0.9, weight_decay=1e-2),
    ],
    ids=lambda settings: f"{settings.name}-{settings.learning_rate:g}",
)
def test_another_optimizer_at_the_hospital_hides_nothing(world, optimizer, sigma: float) -> None:
    images = world.private_images[:8]
    plain, other = (
        attacked(ATTACK, world, images, sigma=sigma),
        attacked(ATTACK, world, images, sigma=sigma, optimizer=optimizer),
    )
    assert len(other.images) == len(plain.images)
    for image in images:
        assert best_ssim(other, image) == pytest.approx(best_ssim(plain, image), abs=1e-3)


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 28, 2), (1, 21, 4)])
def test_colour_other_sizes_and_more_classes(world_maker, channels: int, size: int, classes: int) -> None:
    world = world_maker(channels=channels, size=size, num_classes=classes)
    images = world.private_images[:8]
    result = attacked(ATTACK, world, images, sigma=1e-3)
    assert result.images.shape[1:] == (channels, size, size)
    # Two records of equal brightness share a bin and are lost.
    assert sum(best_ssim(result, image) >= 0.95 for image in images) >= 6


def test_a_clipping_norm_other_than_one(world) -> None:
    assert best_ssim(attacked(ATTACK, world, world.private_images[:1], clip=30.0), world.private_images[0]) >= 0.95


def test_images_are_in_range_and_the_surest_is_first(world) -> None:
    result = attacked(ATTACK, world, world.private_images[:8], sigma=1e-2)
    assert result.images.dtype == torch.float32
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    assert 0.99 < result.details["share"] <= 1


def test_negative_control_at_epsilon_about_one_nothing_comes_back(world) -> None:
    images = world.private_images[:8]
    result = attacked(ATTACK, world, images, sigma=1.0)
    nearest = [float(ssim(world.public_images, image.expand_as(world.public_images)).max()) for image in images]
    assert all(best_ssim(result, image) <= max(0.8, guess) for image, guess in zip(images, nearest, strict=True))


def test_an_empty_batch_gives_nothing(world, clip: float) -> None:
    assert attacked(ATTACK, world, world.private_images[:0], clip=clip).images.shape == (0, 1, 28, 28)
    if math.isfinite(clip):
        assert len(attacked(ATTACK, world, world.private_images[:0], sigma=0.01).images) == 0


def test_a_base_that_is_sure_of_itself_does_not_hide_its_records(world) -> None:
    # The head is scaled until p - y is zero in float32 for every record that the base gets right.
    weights = dict(world.weights)
    weights["head.weight"] = weights["head.weight"] * 1e5
    sure = replace(world, weights=weights)
    model = build_model(world.base)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(weights[name])
        labels = model(world.private_images[:4]).argmax(dim=1)
    result = attacked(ATTACK, sure, world.private_images[:4], sigma=1e-3, labels=labels)
    assert result.details["base_scale"] == 0
    assert sum(best_ssim(result, image) >= 0.95 for image in world.private_images[:4]) >= 3


def test_denoising_and_coding_beat_the_plain_imprint_layer(world) -> None:
    public = world.public(sigma=0.02)
    images = world.private_images[:8]

    def score(design: ImprintDesign, rank: int) -> float:
        crafted = craft_model(world.base, world.weights, world.public_images, design)
        result = replace(ATTACK, rank=rank).reconstruct(world.answer(crafted, public, images), stream(2))
        return sum(best_ssim(result, image) for image in images) / len(images)

    coded = ImprintDesign(bins=128, loudness=Loudness(100.0))
    assert score(coded, 16) > score(replace(coded, centred=False, whitening=0.0), 0) + 0.05


def test_the_same_generator_gives_the_same_bits(world) -> None:
    public = world.public(sigma=0.01)
    first, second = (ATTACK.craft(world.base, world.weights, public, stream(3)) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    observation = world.answer(first, public, world.private_images[:6])
    once, again = (ATTACK.reconstruct(observation, stream(4)) for _ in range(2))
    assert torch.equal(once.images, again.images)
    assert torch.equal(once.scores, again.scores)
    assert once.details == again.details


def test_neither_attack_nor_observation_has_room_for_the_truth() -> None:
    attack: Attack = ATTACK
    assert list(inspect.signature(attack.reconstruct).parameters) == ["observation", "generator"]


def test_another_model_than_the_crafted_one_is_refused(world) -> None:
    public = world.public()
    observation = world.answer((world.base, world.weights), public, world.private_images[:1])
    with pytest.raises(ValueError, match="'cnn', not an imprint model"):
        ATTACK.reconstruct(observation, stream(0))


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"rank": -1}, {"max_logit_change": 0.0}, {"gains": ()}, {"whitenings": (-1.0,)}]
)
def test_a_bad_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=f"adversary.{next(iter(wrong))}"):
        ImprintAttack(**wrong)


def test_real_x_rays_come_back_without_noise(world, hbdp_data) -> None:
    with np.load(hbdp_data / "medmnist" / "pneumoniamnist.npz") as arrays:
        public, private = (
            torch.from_numpy(arrays[f"{split}_images"][:300]).float()[:, None] / 255 for split in ("val", "train")
        )
    base = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 16})
    weights = initial_weights(build_model(base), stream(0))
    hospital = replace(world, base=base, weights=weights, public_images=public, private_images=private)
    images = private[:16]
    result = attacked(ImprintAttack(bins=512), hospital, images, sigma=0.0)
    assert sum(best_ssim(result, image) > 0.8 for image in images) >= 12
    assert all(math.isfinite(value) for value in result.details.values())
