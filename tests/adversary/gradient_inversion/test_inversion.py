"""The attack, from an ordinary release to images."""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hbdp_fed.adversary.gradient_inversion import GradientInversionAttack
from hbdp_fed.adversary.gradient_inversion.coordinates import fit_coordinates
from hbdp_fed.adversary.gradient_inversion.descent import Pace
from hbdp_fed.adversary.gradient_inversion.rehearsal import best_plan
from hbdp_fed.adversary.gradient_inversion.search import Plan, invert
from hbdp_fed.adversary.gradient_inversion.victim import Victim, cast_dummies
from hbdp_fed.dpsgd import record_loss
from hbdp_fed.errors import SettingError
from hbdp_fed.types import Attack, DpSgdParams, ModelSpec, OptimizerSettings, PublicSideInformation, Reconstruction
from scripts.attacks import gradient_inversion
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images
from tests.adversary.gradient_inversion.releases import sent

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4})
IMAGES, LABELS = smooth_images(4, size=16, seed=3), torch.tensor([2, 0, 1, 2])
PUBLIC = smooth_images(8, size=16, seed=1)
QUICK = GradientInversionAttack(iterations=2, widths=(0.2, 0.0), uncorrected=1, tv_weights=(1e-6,))


def psnr(first: Tensor, second: Tensor) -> float:
    return float(-10 * torch.log10((first.double() - second.double()).square().mean()))


# A net without corners, which a search by derivatives gets to the bottom of.


def smooth_victim(*, clip: float = math.inf, count: int = 1, sigma: float = 0.0) -> Victim:
    layers = [
        ("conv", nn.Conv2d(1, 6, 3, stride=2, padding=1)), ("act", nn.Sigmoid()),
        ("deep", nn.Conv2d(6, 6, 3, padding=1)), ("act2", nn.Sigmoid()), ("flat", nn.Flatten()),
        ("head", nn.Linear(6 * 36, 3)),
    ]  # fmt: skip
    model = nn.Sequential(OrderedDict(layers)).double()
    generator = stream(5)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0.0, 0.3, generator=generator)
    public = PublicSideInformation(
        images=smooth_images(40, size=12, seed=1),
        mechanism=DpSgdParams(sigma, clip, 1.0, 1),
        optimizer=OptimizerSettings("sgd", 0.1),
        expected_batch=float(count),
    )
    return Victim(model, record_loss("cross_entropy"), public)


def plan_for(public: Tensor, **changes: object) -> Plan:
    plan = Plan(
        objective="euclidean",
        tv_weight=0.0,
        optimizer="lbfgs",
        pace=Pace(iterations=300, learning_rate=0.05),
        box=True,
        widths=(0.0,),
        uncorrected=0,
        coordinates=fit_coordinates(public, power=0.5),
        start="mean",
        restarts=1,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "optimizer", "start", "clip", "at_least"),
    [
        ("euclidean", "lbfgs", "mean", math.inf, 40.0),
        ("cosine", "lbfgs", "mean", math.inf, 40.0),
        ("cosine", "lbfgs", "noise", 0.1, 40.0),
        ("euclidean", "lbfgs", "public", 0.1, 40.0),
        ("cosine", "adam", "mean", math.inf, 25.0),
        ("cosine", "signed_adam", "mean", math.inf, 22.0),
    ],
)
def test_a_small_smooth_net_gives_its_record_away(
    objective: str, optimizer: str, start: str, clip: float, at_least: float
) -> None:
    victim, image, labels = smooth_victim(clip=clip), smooth_images(1, size=12, seed=2), torch.tensor([1])
    public, cast = victim.public.images, cast_dummies(victim.public, most_records=16)
    target = [value.detach() for value in victim.release(image.double(), labels, cast)]
    plan = plan_for(public, objective=objective, optimizer=optimizer, start=start)
    found = invert(target, victim, cast, labels, public, plan, stream(3))
    mean = psnr(public.mean(dim=0), image[0])
    assert psnr(found.images, image) >= max(at_least, mean + 3)


def test_two_records_of_a_small_smooth_net_come_back_one_by_one() -> None:
    victim, images, labels = smooth_victim(clip=0.1, count=2), smooth_images(2, size=12, seed=2), torch.tensor([0, 1])
    public, cast = victim.public.images, cast_dummies(victim.public, most_records=16)
    target = [value.detach() for value in victim.release(images.double(), labels, cast)]
    found = invert(target, victim, cast, labels, public, plan_for(public), stream(3))
    assert all(psnr(one, other) >= 35.0 for one, other in zip(found.images, images, strict=True))


def test_more_starts_are_never_worse() -> None:
    victim, image, labels = smooth_victim(), smooth_images(1, size=12, seed=2), torch.tensor([1])
    public, cast = victim.public.images, cast_dummies(victim.public, most_records=16)
    target = [value.detach() for value in victim.release(image.double(), labels, cast)]
    one, three = (
        invert(
            target, victim, cast, labels, public,
            plan_for(public, restarts=restarts, start="noise", pace=Pace(5, 0.05)), stream(3),
        )
        for restarts in (1, 3)
    )  # fmt: skip
    assert three.distance < one.distance


def test_rehearsal_asks_for_smooth_images_under_noise_and_not_without() -> None:
    chosen = {}
    for sigma in (0.0, 1.0):
        victim = smooth_victim(clip=0.1, sigma=sigma)
        public, cast = victim.public.images, cast_dummies(victim.public, most_records=16)
        plans = [plan_for(public, tv_weight=weight, pace=Pace(40, 0.05)) for weight in (1e-6, 3.0)]
        plan, score = best_plan(plans, victim, cast, public, batches=1, generator=stream(4))
        assert score is not None
        chosen[sigma] = plan.tv_weight
    assert chosen == {0.0: 1e-6, 1.0: 3.0}


# The attack as a whole.


def rebuilt(attack: GradientInversionAttack, count: int = 1, **release: object) -> Reconstruction:
    observation = sent(IMAGES[:count], LABELS[:count], spec=CNN, public_images=PUBLIC, **release)  # type: ignore[arg-type]
    return attack.reconstruct(observation, stream(2))


def test_it_is_an_attack() -> None:
    attack: Attack = GradientInversionAttack()
    assert attack.name == "gradient_inversion"


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_there_is_an_image_for_every_expected_record(count: int, steps: int) -> None:
    result = rebuilt(QUICK, count, steps=steps, clip=1.0)
    assert result.images.shape == (count, 1, 16, 16)
    assert result.images.dtype == result.scores.dtype == torch.float32
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert len(result.scores) == count
    assert result.details["records"] == count
    assert result.details["objective"] == pytest.approx(-float(result.scores[0]))


@pytest.mark.parametrize("sigma", [1e-6, 1e-2, 1.0, 1e3, 1e12])
@pytest.mark.parametrize("objective", ["cosine", "euclidean"])
def test_no_noise_makes_it_stumble(sigma: float, objective: str) -> None:
    result = rebuilt(replace(QUICK, objective=objective), 2, sigma=sigma, clip=1.0)
    assert bool(result.images.isfinite().all())
    assert all(math.isfinite(value) for value in result.details.values())
    assert bool(result.scores.isfinite().all())


def test_a_round_that_released_nothing_gives_nothing() -> None:
    seen = sent(IMAGES[:1], LABELS[:1], spec=CNN, public_images=PUBLIC)
    nothing = {name: torch.zeros_like(value) for name, value in seen.released.delta.items()}
    result = QUICK.reconstruct(replace(seen, released=replace(seen.released, delta=nothing)), stream(2))
    assert result.images.shape == (0, 1, 16, 16)
    assert result.scores.shape == (0,)


def test_the_same_generator_gives_the_same_bits() -> None:
    attack = replace(QUICK, tv_weights=(1e-6, 1e-2), restarts=2)
    first, second = (rebuilt(attack, 2, sigma=0.1, clip=1.0) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert first.details == second.details
    assert "rehearsal_ssim" in first.details


# The real thing: PneumoniaMNIST's records from the small CNN's gradient, at fresh weights and without noise.


def measured(*arguments: str) -> list[gradient_inversion.Scored]:
    given = gradient_inversion.arguments().parse_args([*arguments, "--tv-weights", "1e-6"])
    return [one for scores, _, _ in gradient_inversion.attacked(given) for one in scores]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_most_single_records_come_back_at_thirty_decibels(hbdp_data: Path) -> None:
    scores = measured("--root", str(hbdp_data), "--batches", "3")
    assert statistics.median(one.psnr for one in scores) >= 30.0
    assert all(one.psnr >= one.mean_psnr + 6 for one in scores)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_corners_that_are_rounded_first_lead_further_than_sharp_ones(hbdp_data: Path) -> None:
    """From the same start with as many steps."""
    arguments = ("--root", str(hbdp_data), "--batches", "1")
    [staged] = measured(*arguments)
    [plain] = measured(*arguments, "--widths", "0", "--iterations", "1950")
    assert staged.psnr >= plain.psnr + 5


# What is refused.


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("objective", "l1"), ("optimizer", "sgd"), ("start", "zero"), ("iterations", 0), ("restarts", 0),
        ("most_records", 0), ("rehearsals", -1), ("uncorrected", -1), ("tv_weights", ()), ("tv_weights", (-1.0,)),
        ("widths", ()), ("widths", (math.nan,)), ("learning_rate", math.inf), ("whitening", -0.5),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(SettingError, match=rf"adversary\.gradient_inversion\.{setting}"):
        GradientInversionAttack(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "words"),
    [((3, 1, 16, 16), "at least 4"), ((9, 1, 10, 16), "11 pixels"), ((9, 1, 16), "two or three dimensions")],
)
def test_public_images_that_do_not_suffice_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        GradientInversionAttack().check_public(torch.zeros(shape))
