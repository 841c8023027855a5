"""LOKI on the mean of honest steps: every hospital's records come back, where the imprint attack mixes them up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, ProbingAttack, TailoredAttack, build_attack, public_of_mean, seen_on
from hbdp_fed.adversary.imprint import ImprintAttack
from hbdp_fed.adversary.loki import LokiAttack
from hbdp_fed.errors import SettingError
from hbdp_fed.types import ALL_HOSPITALS, Observation, Reconstruction
from tests.adversary.attacking import best_ssim, recovered, ssim, stream
from tests.adversary.conftest import World

HOSPITALS, BATCH = 4, 8
LOKI = LokiAttack(shares=(1 / HOSPITALS,) * HOSPITALS, batches=(float(BATCH),) * HOSPITALS, bins=64, rank=16)
IMPRINT = ImprintAttack(bins=64, rank=16)
SURFACES = ("aggregate", "global_model")


@pytest.fixture(scope="module")
def world(world_maker) -> World:
    """Of small images, which are quickly denoised."""
    return world_maker(size=16)


def batches(world) -> tuple[Tensor, ...]:
    return world.private_images[: HOSPITALS * BATCH].split(BATCH)


def mean_of_answers(
    attack: ProbingAttack, world, images: Sequence[Tensor], *, sigma: float = 0.0, clip: float = 1.0,
    shares: Sequence[float] | None = None, surface: str = "aggregate",
) -> Observation:  # fmt: skip
    """What the adversary sees of one probe: the mean of what hospitals with these batches answer."""
    public = world.public(sigma=sigma, clip=clip, expected_batch=float(BATCH))
    names = [f"hospital-{place}" for place in range(len(images))]
    weights = dict(zip(names, shares or [1 / len(images)] * len(images), strict=True))
    aim = public_of_mean(dict.fromkeys(names, public), weights)
    architecture, crafted = attack.craft(world.base, world.weights, aim, stream(1))
    answers = []
    for place, (name, own) in enumerate(zip(names, images, strict=True)):
        handed = attack.for_hospital(crafted, place) if isinstance(attack, TailoredAttack) else crafted
        answer = world.answer((architecture, handed), public, own, seed=5 + place)
        answers.append(replace(answer, model_before=crafted, released=replace(answer.released, hospital=name)))
    [observation] = seen_on(surface, answers, weights)  # type: ignore[arg-type]
    assert observation.released.hospital == ALL_HOSPITALS
    return observation


def attacked(attack: ProbingAttack, world, images: Sequence[Tensor], **answer) -> Reconstruction:
    return attack.reconstruct(mean_of_answers(attack, world, images, **answer), stream(2))


@pytest.mark.parametrize("surface", SURFACES)
def test_without_noise_the_records_of_all_hospitals_come_back_out_of_their_mean(world, clip: float, surface) -> None:
    result = attacked(LOKI, world, batches(world), clip=clip, surface=surface)
    assert recovered(result, torch.cat(batches(world))) >= 0.8 * HOSPITALS * BATCH
    assert result.details["blocks"] == HOSPITALS
    assert result.details["bins"] == LOKI.bins


def test_the_imprint_attack_with_as_many_rows_a_hospital_loses_many_of_them(world) -> None:
    images = torch.cat(batches(world))
    few = (replace(LOKI, bins=32), replace(IMPRINT, bins=32))
    loki, imprint = (recovered(attacked(attack, world, batches(world)), images) for attack in few)
    assert loki >= 0.7 * len(images)
    assert imprint <= 0.5 * len(images)


def test_records_of_different_hospitals_that_look_alike_are_told_apart(world) -> None:
    """The same record at every hospital lies in the same bin of every block."""
    result = attacked(LOKI, world, [world.private_images[place : place + 1] for place in (0, 0, 1, 1)])
    assert len(result.images) == 4
    assert recovered(result, world.private_images[:2]) == 2
    assert int((ssim(result.images, world.private_images[:1].expand(4, -1, -1, -1)) > 0.95).sum()) == 2


def test_the_surest_come_first_and_are_in_range(world) -> None:
    result = attacked(LOKI, world, batches(world), sigma=1e-2)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert len(result.images) == len(result.scores) > HOSPITALS


def test_everybodys_noise_is_in_every_block(world) -> None:
    """At a noise that the attack on one answer survives the sum of four is four times as noisy in variance."""
    images = torch.cat(batches(world))
    quiet, loud = (recovered(attacked(LOKI, world, batches(world), sigma=sigma), images) for sigma in (1e-3, 2e-1))
    assert quiet > 0.7 * len(images)
    assert loud == 0
    observation = mean_of_answers(LOKI, world, batches(world), sigma=0.1)
    assert observation.public.mechanism.noise_multiplier == pytest.approx(0.1 * math.sqrt(HOSPITALS))


def test_a_hospital_that_counts_less_or_is_not_there_does_not_hide_the_others(world) -> None:
    shares = (0.1, 0.2, 0.3, 0.4)
    unequal = attacked(replace(LOKI, shares=shares), world, batches(world), shares=shares)
    assert recovered(unequal, torch.cat(batches(world))) >= 0.8 * HOSPITALS * BATCH
    without = (*batches(world)[:3], world.private_images[:0])
    found = attacked(LOKI, world, without)
    assert len(found.images) <= 3 * BATCH
    assert recovered(found, torch.cat(without)) >= 0.8 * 3 * BATCH


def test_a_quiet_hospitals_records_are_weighed_as_what_they_are_not_as_loud_ones(world) -> None:
    shares = (0.04, 0.16, 0.3, 0.5)
    observation = mean_of_answers(LOKI, world, batches(world), shares=shares, sigma=2e-2)
    taken_for_equal, known = (replace(LOKI, shares=guess) for guess in (LOKI.shares, shares))
    images = batches(world)[1]
    scores = [
        sum(best_ssim(attack.reconstruct(observation, stream(2)), image) for image in images) / BATCH
        for attack in (taken_for_equal, known)
    ]
    assert scores[1] > scores[0] + 0.05


def test_one_hospital_is_attacked_as_by_the_imprint_attack(world) -> None:
    """Nothing is to be told apart there: the same model, and the same images to the last bit."""
    images = batches(world)[:1]
    alone = replace(LOKI, shares=(1.0,), batches=(float(BATCH),))
    found, expected = (attacked(attack, world, images, sigma=1e-3) for attack in (alone, IMPRINT))
    assert torch.equal(found.images, expected.images)


def test_loki_is_the_one_attack_that_tailors_and_only_sees_means() -> None:
    tailoring = [name for name in ATTACKS if isinstance(build_attack(name), TailoredAttack)]
    assert tailoring == ["loki"]
    assert ATTACKS["loki"].surfaces == SURFACES


def test_a_model_that_is_none_of_blocks_is_refused(world) -> None:
    observation = mean_of_answers(IMPRINT, world, batches(world))
    with pytest.raises(ValueError, match="64 rows is none of 4 equal blocks"):
        LOKI.reconstruct(observation, stream(0))
    with pytest.raises(ValueError, match="'cnn', not an imprint model"):
        LOKI.reconstruct(replace(observation, architecture=world.base, model_before=world.weights), stream(0))


def test_a_bad_setting_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"^adversary\.bins: must be at least 2, got 1"):
        LokiAttack(bins=1)


@pytest.mark.parametrize(("shares", "batches"), [((), ()), ((0.5, 0.5), (8.0,)), ((1.0, 0.0), (8.0, 8.0))])
def test_hospitals_without_a_share_or_a_batch_are_refused(
    shares: tuple[float, ...], batches: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="every hospital needs a positive share and batch"):
        LokiAttack(shares=shares, batches=batches)


def test_too_few_public_images_are_refused_under_its_own_name(world) -> None:
    with pytest.raises(SettingError, match="loki needs at least 8 public"):
        LOKI.check_public(world.public_images[:7])
