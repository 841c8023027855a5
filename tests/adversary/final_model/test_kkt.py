"""Records out of final weights: found where theory says so, refused where it cannot, never a number that is none."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.final_model import KktAttack
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.types import Attack, ModelSpec, Observation, Reconstruction
from tests.adversary.final_model.releases import Release, mlp, observation_of, random_images, released

ATTACK = KktAttack(candidates=8, iterations=400)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def two_classes() -> Release:
    return released(mlp(300), random_images(4), torch.tensor([0, 1, 0, 1]))


@cache
def three_classes() -> Release:
    return released(mlp(300, classes=3), random_images(3, seed=3), torch.tensor([0, 1, 2]))


def nearest(claimed: Tensor, images: Tensor) -> Tensor:
    """The root mean squared error of each image with the nearest claimed one."""
    return torch.cdist(claimed.flatten(1), images.flatten(1)).amin(dim=0) / math.sqrt(images[0].numel())


def test_the_attack_is_an_attack() -> None:
    attack: Attack = ATTACK
    assert attack.name == "kkt"


@pytest.mark.parametrize("release", [two_classes, three_classes])
def test_records_of_a_tiny_net_come_back_closer_than_any_public_image(release) -> None:
    seen = release()
    result = ATTACK.reconstruct(seen.observation, stream())
    found, guessed = nearest(result.images, seen.images), nearest(seen.observation.public.images, seen.images)
    assert result.details["error"] < 0.01
    assert float(found.median()) < 0.06
    assert int((found < 0.5 * guessed).sum()) >= len(seen.images) - 1


def test_records_that_were_not_trained_on_do_not_come_back() -> None:
    seen = two_classes()
    result = ATTACK.reconstruct(seen.observation, stream())
    others = random_images(4, seed=17)
    assert float(nearest(result.images, others).min()) > 0.15


def test_claims_are_images_the_surest_first() -> None:
    result = ATTACK.reconstruct(two_classes().observation, stream())
    assert result.images.dtype == torch.float32
    assert 0 < len(result.images) <= ATTACK.candidates
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert torch.equal(result.scores, result.scores.sort(descending=True).values)
    assert float(result.scores[0]) == 1
    assert result.details["kept"] == len(result.images)


def test_the_same_generator_gives_the_same_claims() -> None:
    short = replace(ATTACK, iterations=5)
    first, again, other = (short.reconstruct(two_classes().observation, stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert first.images.shape != other.images.shape or not torch.equal(first.images, other.images)


def test_restarts_keep_the_search_that_explains_most() -> None:
    short = replace(ATTACK, iterations=20)
    # Restarts go on drawing from the same generator, so that the first try is that of a single one.
    alone = short.reconstruct(two_classes().observation, stream()).details["error"]
    best = replace(short, restarts=3).reconstruct(two_classes().observation, stream()).details["error"]
    assert best <= alone


def test_a_model_that_learnt_nothing_gives_no_claims() -> None:
    seen = two_classes().observation
    still = {name: torch.zeros_like(value) for name, value in seen.released.delta.items()}
    result = ATTACK.reconstruct(replace(seen, released=replace(seen.released, delta=still)), stream())
    assert result.images.shape == (0, 1, 5, 5)
    assert len(result.scores) == 0


def with_noise(seen: Observation, size: float) -> Observation:
    draw = stream(5)
    delta = {
        name: value + size * torch.randn(value.shape, generator=draw, dtype=torch.float64)
        for name, value in seen.released.delta.items()
    }
    return replace(seen, released=replace(seen.released, delta=delta))


def finite(result: Reconstruction) -> bool:
    numbers = [result.images, result.scores, torch.tensor(list(result.details.values()))]
    return all(bool(value.isfinite().all()) for value in numbers)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6, 1e18], ids=str)
def test_noise_of_any_size_leaves_finite_claims(size: float) -> None:
    assert finite(replace(ATTACK, iterations=20).reconstruct(with_noise(two_classes().observation, size), stream()))


def test_noise_in_the_weights_hides_the_records() -> None:
    seen = two_classes()
    result = ATTACK.reconstruct(with_noise(seen.observation, 1.0), stream())
    assert float(nearest(result.images, seen.images).min()) > 0.12


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4}),
        ModelSpec("resnet9", {"in_channels": 1, "num_classes": 2, "width": 8}),
    ],
    ids=lambda spec: spec.name,
)
def test_other_nets_of_the_registry_can_be_searched(spec: ModelSpec) -> None:
    before = initial_weights(build_model(spec), stream())
    after = initial_weights(build_model(spec), stream(1))
    delta = {name: after[name].double() - value.double() for name, value in before.items()}
    seen = observation_of(spec, before, delta, public=random_images(3, size=16), records=4)
    result = KktAttack(candidates=4, iterations=2).reconstruct(seen, stream())
    assert finite(result)
    assert result.images.shape[1:] == (1, 16, 16)


def test_fewer_public_images_than_candidates_suffice() -> None:
    seen = two_classes().observation
    few = replace(seen, public=replace(seen.public, images=seen.public.images[:1]))
    assert finite(replace(ATTACK, iterations=5).reconstruct(few, stream()))


def refuse_work(*_: object) -> None:
    raise AssertionError("work was begun")


@pytest.mark.parametrize(
    ("change", "key", "text"),
    [
        ({"public": {"loss": "binary_cross_entropy"}}, "adversary.attack", "training.loss=cross_entropy"),
        ({"public": {"loss": "dice_cross_entropy"}}, "adversary.attack", "here it is dice_cross_entropy"),
        ({"public": {"images": torch.zeros(0, 1, 5, 5)}}, "adversary.attack", "at least 1 public"),
        ({"candidates": 1}, "adversary.kkt.candidates", "must be at least 2, one a class, got 1"),
    ],
    ids=["findings", "segmentation", "no public image", "too few candidates"],
)
def test_what_it_cannot_do_is_refused_before_any_work(monkeypatch, change, key: str, text: str) -> None:
    monkeypatch.setattr("hbdp_fed.adversary.final_model.kkt.search", refuse_work)
    seen = two_classes().observation
    seen = replace(seen, public=replace(seen.public, **change.get("public", {})))
    attack = replace(ATTACK, candidates=change.get("candidates", ATTACK.candidates))
    with pytest.raises(SettingError, match=text) as caught:
        attack.reconstruct(seen, stream())
    assert caught.value.key == key


def test_a_single_logit_and_weights_that_are_no_numbers_are_refused() -> None:
    spec = mlp(4, classes=1)
    before = initial_weights(build_model(spec), stream())
    seen = observation_of(spec, before, dict(before), public=random_images(3), records=4)
    with pytest.raises(SettingError, match="needs two classes or more, the model has 1"):
        ATTACK.reconstruct(seen, stream())
    with pytest.raises(SettingError, match="needs finite weights"):
        ATTACK.reconstruct(with_noise(two_classes().observation, math.inf), stream())


def test_only_the_global_model_is_read() -> None:
    seen = two_classes().observation
    alone = replace(
        seen,
        threat_model=replace(seen.threat_model, surface="update"),
        released=replace(seen.released, hospital="hospital-0"),
    )
    with pytest.raises(ValueError, match="needs the surface global_model"):
        ATTACK.reconstruct(alone, stream())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("candidates", 0), ("iterations", 0), ("restarts", 0), ("image_rate", 0.0), ("multiplier_rate", -1.0),
        ("slope", 0.0), ("slope", math.inf), ("position", 1.5), ("range_weight", -1.0), ("alike", math.nan),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(setting: str, value: float) -> None:
    with pytest.raises(SettingError, match=rf"adversary\.kkt\.{setting}: must "):
        KktAttack(**{setting: value})  # type: ignore[arg-type]
