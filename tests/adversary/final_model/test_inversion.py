"""Model inversion: the images a released model takes for typical of its classes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from hbdp_fed.adversary.final_model import ModelInversionAttack
from hbdp_fed.adversary.final_model.inversion import total_variation
from hbdp_fed.errors import SettingError
from hbdp_fed.types import Attack, ModelSpec, Observation
from tests.adversary.final_model.releases import mlp, observation_of, random_images, released

SIZE = 6
LINEAR = ModelSpec("linear_probe", {"in_channels": 1, "num_classes": 2, "image_size": [SIZE, SIZE], "gain": 1.0})
FREE = ModelInversionAttack(per_class=2, iterations=60, spread=0.0, variation_weight=0.0, prior_weight=0.0)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def linear_release(template: torch.Tensor) -> Observation:
    """A linear model whose first logit is the image's inner product with the template."""
    before = {"probe.weight": torch.zeros(1, SIZE * SIZE)}
    delta = {"probe.weight": template.reshape(1, -1).double()}
    grey = 0.5 + 0.1 * (random_images(20, size=SIZE, seed=8) - 0.5)
    return observation_of(LINEAR, before, delta, public=grey, records=10)


def test_a_linear_model_gives_its_template_and_the_other_class_its_opposite() -> None:
    template = torch.randn(1, SIZE, SIZE, generator=stream())
    seen = linear_release(template)
    result = FREE.reconstruct(seen, stream())
    change = (result.images - seen.public.images.mean(dim=0)).flatten(start_dim=1)
    # Every pixel goes the way its own weight points, until it reaches the range's end.
    alike = functional.cosine_similarity(change, template.sign().reshape(1, -1))
    assert sorted(alike.sign().tolist()) == [-1, -1, 1, 1]
    assert float(alike.abs().min()) > 0.9


def test_all_images_are_surer_of_their_class_than_where_they_began() -> None:
    seen = released(mlp(40), random_images(6), torch.tensor([0, 1, 0, 1, 0, 1])).observation
    started = replace(FREE, iterations=1, rate=1e-9).reconstruct(seen, stream())
    result = FREE.reconstruct(seen, stream())
    assert float(result.scores.min()) > 0.9
    assert float(result.scores.min()) > float(started.scores.min())


def test_the_prior_and_the_variation_hold_images_near_smooth_public_ones() -> None:
    seen = linear_release(torch.randn(1, SIZE, SIZE, generator=stream()))
    mean = seen.public.images.mean(dim=0)
    free = FREE.reconstruct(seen, stream()).images
    held = replace(FREE, prior_weight=10.0).reconstruct(seen, stream()).images
    smooth = replace(FREE, variation_weight=50.0).reconstruct(seen, stream()).images
    assert float((held - mean).abs().mean()) < 0.2 * float((free - mean).abs().mean())
    assert float(total_variation(smooth).mean()) < 0.5 * float(total_variation(free).mean())


def test_the_variation_is_of_neighbours_along_every_axis() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    # Down: |0.5| and |-0.5|; across: |1| and |0|.
    assert float(total_variation(image)) == pytest.approx(0.5 + 0.5)
    assert total_variation(torch.rand(3, 1, 4, 5, 6)).shape == (3,)


def test_claims_are_finite_images_one_block_a_class() -> None:
    attack: Attack = ModelInversionAttack(per_class=3, iterations=10)
    seen = released(mlp(20, classes=3), random_images(6), torch.tensor([0, 1, 2, 0, 1, 2]), steps=20).observation
    result = attack.reconstruct(seen, stream())
    assert attack.name == "model_inversion"
    assert result.images.shape == (9, 1, 5, 5)
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert torch.equal(result.scores, result.scores.sort(descending=True).values)
    assert result.details["classes"] == 3


@pytest.mark.parametrize("size", [1e-3, 1e6, 1e30], ids=str)
def test_weights_of_any_size_leave_finite_claims(size: float) -> None:
    seen = linear_release(size * torch.randn(1, SIZE, SIZE, generator=stream()))
    result = replace(FREE, iterations=5).reconstruct(seen, stream())
    assert bool(result.images.isfinite().all())
    assert bool(result.scores.isfinite().all())


def test_what_it_cannot_do_is_refused() -> None:
    seen = linear_release(torch.ones(1, SIZE, SIZE))
    with pytest.raises(SettingError, match=r"training\.loss=cross_entropy"):
        FREE.reconstruct(replace(seen, public=replace(seen.public, loss="binary_cross_entropy")), stream())
    with pytest.raises(SettingError, match="at least 2 public"):
        FREE.reconstruct(replace(seen, public=replace(seen.public, images=seen.public.images[:1])), stream())
    dense = replace(seen, architecture=ModelSpec("linear_probe", {**LINEAR.args, "dense": True}))
    with pytest.raises(SettingError, match="needs one answer an image"):
        FREE.reconstruct(dense, stream())
    with pytest.raises(SettingError, match="needs finite weights"):
        FREE.reconstruct(linear_release(torch.full((1, SIZE, SIZE), math.nan)), stream())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("per_class", 0), ("iterations", 0), ("rate", 0.0), ("spread", -0.1), ("prior_weight", math.inf)],
)
def test_a_setting_out_of_range_is_named(setting: str, value: float) -> None:
    with pytest.raises(SettingError, match=rf"adversary\.model_inversion\.{setting}: must "):
        ModelInversionAttack(**{setting: value})  # type: ignore[arg-type]
