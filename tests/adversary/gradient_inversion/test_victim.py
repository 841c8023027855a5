"""The imagined hospital against the real training loop."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.adversary.gradient_inversion.victim import Cast, cast_dummies, imagine, released_target
from hbdp_fed.errors import SettingError
from hbdp_fed.types import ModelSpec, OptimizerSettings
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images
from tests.adversary.gradient_inversion.releases import SGD, sent, with_public

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4})
IMAGES, LABELS = smooth_images(4, size=16, seed=3), torch.tensor([2, 0, 1, 2])


def imagined(observation, images=IMAGES, labels=LABELS) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The real release, and what the adversary computes for the true records."""
    cast = cast_dummies(observation.public, most_records=16)
    victim = imagine(observation, cast=cast, device="cpu")
    return released_target(observation, victim), victim.release(images.double(), labels, cast)


def assert_equal_release(pair: tuple[list[torch.Tensor], list[torch.Tensor]], *, within: float) -> None:
    """Within so much of the largest coordinate, or absolutely where that is below 1."""
    real, own = pair
    largest = max(1.0, *(float(value.abs().max()) for value in real))
    for one, other in zip(real, own, strict=True):
        torch.testing.assert_close(other.detach(), one, rtol=0, atol=within * largest)


@pytest.mark.parametrize("clip", [math.inf, 0.3])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        OptimizerSettings("sgd", 0.05, 0.9, weight_decay=0.01),
        OptimizerSettings("nadam", 1e-3, 0.9),
        OptimizerSettings("adamw", 1e-3, 0.9, weight_decay=0.01),
    ],
    ids=lambda settings: f"{settings.name}-{settings.weight_decay:g}",
)
def test_one_step_of_the_true_records_is_what_was_released(clip: float, optimizer: OptimizerSettings) -> None:
    observation = sent(IMAGES, LABELS, spec=CNN, clip=clip, optimizer=optimizer)
    assert_equal_release(imagined(observation), within=1e-5)


@pytest.mark.parametrize("clip", [math.inf, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_unrolled_steps_of_the_true_records_are_what_was_released(
    clip: float, momentum: float, weight_decay: float
) -> None:
    optimizer = OptimizerSettings("sgd", 0.05, momentum, weight_decay=weight_decay)
    observation = sent(IMAGES, LABELS, spec=CNN, steps=4, clip=clip, optimizer=optimizer)
    real, own = imagined(observation)
    assert_equal_release((real, own), within=1e-6)
    # And not because nothing moved.
    assert max(float(value.abs().max()) for value in real) > 3e-3


def test_unrolled_steps_follow_a_learning_rate_that_changes() -> None:
    observation = sent(IMAGES, LABELS, spec=CNN, steps=3)
    slower = with_public(observation, later_rates=(0.02, 0.01))
    real, own = imagined(slower)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(real, own, strict=True)) > 1e-3


@pytest.mark.parametrize("steps", [1, 3])
def test_class_weights_count(steps: int) -> None:
    observation = sent(IMAGES, LABELS, spec=CNN, class_weights=(0.5, 1.0, 3.0), steps=steps)
    assert_equal_release(imagined(observation), within=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_records_of_a_patient_are_clipped_as_one(steps: int) -> None:
    groups = torch.tensor([5, 5, 8, 8])
    observation = sent(IMAGES, LABELS, spec=CNN, clip=0.3, groups=groups, records_per_patient=2, steps=steps)
    assert observation.public.records_per_unit == 2
    assert_equal_release(imagined(observation), within=1e-6)


def test_the_releases_slope_is_that_of_finite_differences() -> None:
    observation = sent(IMAGES[:2], LABELS[:2], spec=ModelSpec("resnet9", {**CNN.args, "width": 4}), clip=0.3, steps=2)
    cast = cast_dummies(observation.public, most_records=16)
    victim = imagine(observation, cast=cast, device="cpu").smoothed(0.5)
    start, direction = IMAGES[:2].double(), torch.randn(2, 1, 16, 16, generator=stream(4), dtype=torch.float64)
    probes = [torch.randn(p.shape, generator=stream(5), dtype=torch.float64) for p in victim.parameters.values()]

    def along(distance: float) -> torch.Tensor:
        released = victim.release(images + distance * direction, LABELS[:2], cast)
        return torch.stack([(one * other).sum() for one, other in zip(released, probes, strict=True)]).sum()

    images = start.requires_grad_()
    [slope] = torch.autograd.grad(along(0.0), images)
    expected = float((along(1e-5) - along(-1e-5)).detach()) / 2e-5
    assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_clipping_one_record_only_scales_its_gradient() -> None:
    plain, clipped = (
        imagined(sent(IMAGES[:1], LABELS[:1], spec=CNN, clip=clip), IMAGES[:1], LABELS[:1])[1]
        for clip in (math.inf, 0.1)
    )
    norm = math.sqrt(sum(float(value.detach().square().sum()) for value in plain))
    assert norm > 0.1
    for one, other in zip(plain, clipped, strict=True):
        torch.testing.assert_close(other.detach(), one.detach() * 0.1 / norm)


# How many dummies.


@pytest.mark.parametrize(
    ("expected", "per_unit", "most", "records"),
    [(1.0, 1, 16, 1), (0.2, 1, 16, 1), (3.6, 1, 16, 4), (90.0, 1, 16, 16), (3.0, 2, 16, 6), (30.0, 5, 16, 15)],
)
def test_there_are_as_many_dummies_as_records_are_expected_up_to_a_bound(
    expected: float, per_unit: int, most: int, records: int
) -> None:
    public = with_public(sent(IMAGES, LABELS, spec=CNN), expected_batch=expected, records_per_unit=per_unit).public
    cast = cast_dummies(public, most_records=most)
    assert cast.records == len(cast.steps[0]) == records
    assert cast.unit_size == per_unit


def test_steps_that_draw_everybody_share_their_dummies_and_others_do_not() -> None:
    observation = sent(IMAGES, LABELS, spec=CNN, steps=3)
    assert cast_dummies(observation.public, most_records=16) == Cast(((0, 1, 2, 3),) * 3)
    mechanism = observation.public.mechanism
    rare = with_public(observation, mechanism=type(mechanism)(0.0, mechanism.max_grad_norm, 0.1, 3)).public
    assert cast_dummies(rare, most_records=16) == Cast(((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)))
    assert cast_dummies(rare, most_records=6) == Cast(((0, 1), (2, 3), (4, 5)))


# What cannot be inverted.


def test_several_steps_of_another_optimizer_are_refused_by_name() -> None:
    observation = sent(IMAGES, LABELS, spec=CNN, steps=2, optimizer=OptimizerSettings("nadam", 1e-3))
    with pytest.raises(ValueError, match="nadam"):
        imagined(observation)


def test_a_loss_without_one_label_a_record_is_refused_by_name() -> None:
    observation = with_public(sent(IMAGES, LABELS, spec=CNN), loss="binary_cross_entropy")
    with pytest.raises(SettingError, match=r"binary_cross_entropy.*accepted: cross_entropy"):
        imagined(observation)


def test_a_model_that_segments_is_refused_by_name() -> None:
    spec = ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8})
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    observation = sent(IMAGES[:1], labels, spec=spec)
    with pytest.raises(SettingError, match="unet"):
        imagined(observation, IMAGES[:1], labels)
