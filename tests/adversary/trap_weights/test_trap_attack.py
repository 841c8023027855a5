"""Trap weights through the real DP-SGD step, with their positive and negative controls."""

from __future__ import annotations

import inspect
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from hbdp_fed.adversary.imprint import ImprintAttack
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.trap_weights import TrapDesign, TrapWeightsAttack, craft_model
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import Attack, OptimizerSettings
from tests.adversary.attacking import attacked, best_ssim, recovered, ssim, stream
from tests.adversary.conftest import SGD

ATTACK = TrapWeightsAttack(bins=128, rank=16)
BATCH = 16


def test_positive_control_most_of_a_batch_comes_back_without_noise(world, clip: float) -> None:
    images = world.private_images[:BATCH]
    assert recovered(attacked(ATTACK, world, images, clip=clip, expected_batch=float(BATCH)), images) >= 10


@pytest.mark.parametrize("sigma", [1e-4, 1e-3, 1e-2])
def test_records_come_back_through_clipping_and_little_noise(world, sigma: float) -> None:
    images = world.private_images[:BATCH]
    assert recovered(attacked(ATTACK, world, images, sigma=sigma, expected_batch=float(BATCH)), images) >= 8


def test_negative_control_at_epsilon_about_one_nothing_comes_back(world) -> None:
    images, strangers = world.private_images[:BATCH], world.private_images[BATCH : 2 * BATCH]
    result = attacked(ATTACK, world, images, sigma=1.0, expected_batch=float(BATCH))
    assert recovered(result, images, ssim=0.9) == 0
    # What does come out is a guess at any image of this kind: it is as near to images that were never in the batch.
    near, far = (sum(best_ssim(result, image) for image in some) / BATCH for some in (images, strangers))
    assert near <= far + 0.05
    average = world.public_images.mean(dim=0)
    guess = torch.cat([world.public_images, average[None]])
    for image in images:
        assert best_ssim(result, image) <= float(ssim(guess, image.expand_as(guess)).max()) + 0.05


def test_more_noise_never_helps_much(world) -> None:
    images = world.private_images[:BATCH]
    reached = []
    for sigma in (0.0, 1e-2, 1e-1, 1.0):
        result = attacked(ATTACK, world, images, sigma=sigma, expected_batch=float(BATCH))
        reached.append(sum(best_ssim(result, image) for image in images) / BATCH)
    assert all(later <= earlier + 0.01 for earlier, later in pairwise(reached))
    assert reached[0] - reached[-1] > 0.1


@pytest.mark.parametrize(
    "optimizer", [OptimizerSettings("nadam", 2e-3, 0.9), OptimizerSettings("adamw", 1e-3, 0.9, weight_decay=1e-2)]
)
def test_another_optimizer_at_the_hospital_hides_nothing(world, optimizer: OptimizerSettings) -> None:
    images = world.private_images[:8]
    plain, other = (attacked(ATTACK, world, images, sigma=1e-3, optimizer=kind) for kind in (SGD, optimizer))
    assert len(other.images) == len(plain.images)
    for image in images:
        assert best_ssim(other, image) == pytest.approx(best_ssim(plain, image), abs=1e-3)


def test_colour_and_more_classes(world_maker) -> None:
    world = world_maker(channels=3, size=21, num_classes=4)
    images = world.private_images[:8]
    result = attacked(ATTACK, world, images, sigma=1e-3)
    assert result.images.shape[1:] == (3, 21, 21)
    assert recovered(result, images) >= 4


def test_a_clipped_records_share_and_the_design_are_stated_as_numbers(world) -> None:
    images = world.private_images[:8]
    details = attacked(ATTACK, world, images, sigma=1e-3).details
    assert 0.5 < details["share"] <= 1
    assert details["rows"] in {128.0, 64.0, 32.0}
    assert details["activation"] == pytest.approx(1 / 8, rel=0.25)
    assert 0 <= details["rehearsal_ssim"] <= 1
    assert details["denoise"] in {0.0, 1.0}
    assert all(isinstance(value, float) for value in details.values())


def test_images_are_in_range_and_the_surest_is_first(world) -> None:
    result = attacked(ATTACK, world, world.private_images[:8], sigma=1e-2)
    assert len(result.images) == len(result.scores) > 0
    assert result.images.dtype == result.scores.dtype == torch.float32
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


@pytest.mark.parametrize("sigma", [0.0, 1e-4])
def test_an_empty_batch_gives_nothing(world, sigma: float) -> None:
    assert attacked(ATTACK, world, world.private_images[:0], sigma=sigma).images.shape == (0, 1, 28, 28)


def test_noise_is_taken_for_a_record_rarely_and_with_less_confidence_than_any(world) -> None:
    empty, full = (attacked(ATTACK, world, world.private_images[:count], sigma=1e-2) for count in (0, 8))
    assert len(empty.images) <= 4
    # A clipped record has the same norm as any other, and what it left in the rows stands out of the noise.
    assert float(empty.scores.max()) < float(full.scores[4]) / 10


def test_a_record_beside_itself_with_the_other_label_leaves_every_image_a_number(world, clip: float) -> None:
    # Their factors nearly cancel, by which a row is divided.
    images = world.private_images[[0, 0, 1, 2, 3]]
    result = attacked(ATTACK, world, images, clip=clip, labels=torch.tensor([0, 1, 0, 0, 0]))
    assert bool(result.images.isfinite().all())
    assert bool(result.scores.isfinite().all())
    assert recovered(result, images[2:]) >= 2


@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_the_same_observation_and_generator_give_the_same_bits(world, sigma: float) -> None:
    public = world.public(sigma=sigma)
    first, second = (ATTACK.craft(world.base, world.weights, public, stream(3)) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    observation = world.answer(first, public, world.private_images[:6])
    once, again = (ATTACK.reconstruct(observation, stream(4)) for _ in range(2))
    assert torch.equal(once.images, again.images)
    assert torch.equal(once.scores, again.scores)
    assert once.details == again.details


def test_reading_leaves_the_observation_as_it_was(world) -> None:
    public = world.public(sigma=0.01)
    crafted = ATTACK.craft(world.base, world.weights, public, stream(3))
    observation = world.answer(crafted, public, world.private_images[:6])
    before = {name: value.clone() for name, value in observation.released.delta.items()}
    ATTACK.reconstruct(observation, stream(4))
    assert all(torch.equal(observation.released.delta[name], value) for name, value in before.items())


def test_neither_attack_nor_observation_has_room_for_the_truth() -> None:
    attack: Attack = ATTACK
    assert list(inspect.signature(attack.reconstruct).parameters) == ["observation", "generator"]


def test_a_hospital_that_was_handed_no_trap_weights_is_refused(world) -> None:
    public = world.public()
    honest = world.answer((world.base, world.weights), public, world.private_images[:1])
    with pytest.raises(ValueError, match="'cnn', not a model with trap weights"):
        ATTACK.reconstruct(honest, stream(0))


def test_neither_attack_reads_the_others_planted_model(world) -> None:
    public = world.public()
    imprint = ImprintAttack(bins=16, rank=4)
    imprinted = world.answer(imprint.craft(world.base, world.weights, public, stream(0)), public, world.public_images)
    with pytest.raises(ValueError, match="not a model with trap weights"):
        ATTACK.reconstruct(imprinted, stream(0))
    trapped = world.answer(ATTACK.craft(world.base, world.weights, public, stream(0)), public, world.public_images)
    with pytest.raises(ValueError, match="not an imprint model"):
        imprint.reconstruct(trapped, stream(0))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((7, 1, 28, 28), "at least 8 public"), ((120, 1, 10, 28), "at least 11 pixels"), ((120, 1, 28), "dimensions")],
)
def test_public_images_that_do_not_suffice_are_refused_before_any_training(
    world, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(SettingError, match=rf"adversary\.attack.*trap_weights.*{reason}"):
        ATTACK.check_public(torch.zeros(shape))
    with pytest.raises(SettingError, match=r"adversary\.attack"):
        ATTACK.craft(world.base, world.weights, replace(world.public(), images=torch.zeros(shape)), stream(0))


def test_volumes_and_just_enough_images_are_accepted() -> None:
    ATTACK.check_public(torch.zeros(8, 1, 11, 11))
    ATTACK.check_public(torch.zeros(8, 2, 11, 12, 13))


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"rank": -1}, {"max_logit_change": 0.0}, {"gains": ()}, {"whitenings": (-1.0,)}], ids=str
)
def test_a_bad_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=f"adversary.{next(iter(wrong))}"):
        TrapWeightsAttack(**wrong)


def test_the_hospital_sees_a_model_that_predicts_nearly_as_the_base_does(world) -> None:
    base = build_model(world.base)
    load_weights(base, world.weights)
    design = TrapDesign(rows=64, activation=0.1, loudness=Loudness(100.0), max_logit_change=0.05)
    crafted = craft_model(world.base, world.weights, world.public_images, design)
    planted = build_model(crafted[0])
    load_weights(planted, crafted[1])
    extremes = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    images = torch.cat([world.private_images, extremes])
    with torch.no_grad():
        change = (planted(images) - base(images)).abs().max()
    assert 0 < float(change) <= 0.05 * 1.001
