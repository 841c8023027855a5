"""How the rows are laid out, by counting signs and activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.planted.gradient import active_rows
from hbdp_fed.adversary.trap_weights.crafting import TrapDesign, craft_model, trap_rows
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images

DESIGN = TrapDesign(rows=48, activation=0.1, loudness=Loudness(100.0), seed=3)


def activations(rows: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """bool (n, b), by a plain product of pixels."""
    return torch.einsum("nchw,bchw->nb", rows.double(), images.double()) > 0


@pytest.mark.parametrize("activation", [0.02, 1 / 16, 0.25])
def test_rows_are_active_for_the_wanted_share_of_images(world, activation: float) -> None:
    rows = trap_rows(world.public_images, rows=256, activation=activation, generator=stream(0))
    seen = float(activations(rows, world.public_images).double().mean())
    unseen = float(activations(rows, smooth_images(300, seed=11)).double().mean())
    assert seen == pytest.approx(activation, rel=0.25)
    assert unseen == pytest.approx(activation, rel=0.4)


def test_few_public_images_make_rows_that_are_rather_too_quiet_than_too_loud() -> None:
    rows = trap_rows(smooth_images(16, seed=1), rows=256, activation=0.1, generator=stream(0))
    assert 0.03 < float(activations(rows, smooth_images(300, seed=11)).double().mean()) < 0.13


@pytest.mark.parametrize("size", [14, 15])
def test_half_of_a_rows_weights_are_negative(size: int) -> None:
    rows = trap_rows(smooth_images(20, size=size), rows=64, activation=0.1, generator=stream(0))
    negative = (rows < 0).flatten(start_dim=1).sum(dim=1)
    halves = {size**2 // 2, size**2 - size**2 // 2}
    assert set(negative.tolist()) <= halves
    # Which half is random.
    assert not torch.equal(rows[0] < 0, rows[1] < 0)


def test_only_the_positive_half_is_scaled_and_by_one_factor_below_one_a_row(world) -> None:
    rows = trap_rows(world.public_images, rows=64, activation=0.1, generator=stream(0)).flatten(start_dim=1)
    # The generator's first draw: Gaussian magnitudes.
    drawn = torch.randn(64, 28 * 28, generator=stream(0)).abs()
    for row, magnitude in zip(rows, drawn, strict=True):
        torch.testing.assert_close(-row[row < 0], magnitude[row < 0])
        alphas = row[row > 0] / magnitude[row > 0]
        torch.testing.assert_close(alphas, alphas.mean().expand_as(alphas))
        assert 0 < float(alphas.mean()) < 1


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_public_images_that_are_all_the_same_leave_the_rows_finite(level: float) -> None:
    images = torch.full((9, 1, 12, 12), level)
    rows = trap_rows(images, rows=32, activation=0.1, generator=stream(0))
    assert bool(rows.isfinite().all())


def test_the_planted_layer_is_active_where_the_rows_on_pixels_are(world) -> None:
    rows = trap_rows(world.public_images, rows=DESIGN.rows, activation=DESIGN.activation, generator=stream(DESIGN.seed))
    architecture, weights = craft_model(world.base, world.weights, world.public_images, DESIGN)
    assert architecture.args["ceiling"] is None
    planted = active_rows(architecture.args, weights, world.private_images)
    # In float32 a level next to zero may fall on either side.
    assert float((activations(rows, world.private_images) != planted.T).double().mean()) < 1e-3


def test_the_seed_alone_decides_the_rows(world) -> None:
    same, again, other = (
        craft_model(world.base, world.weights, world.public_images, replace(DESIGN, seed=seed))[1]["planted.weight"]
        for seed in (3, 3, 4)
    )
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
