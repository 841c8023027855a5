from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hbdp_fed.adversary.imprint.bins import cut_bins, read_bins
from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.planted.code import fit_code, read_code
from hbdp_fed.adversary.planted.crafting import Loudness, class_voices
from hbdp_fed.adversary.planted.rehearsal import planted_share
from hbdp_fed.dpsgd import plain_summer
from hbdp_fed.models import build_model, load_weights

DESIGN = ImprintDesign(bins=64, loudness=Loudness(100.0))


def built(world, design=DESIGN):
    architecture, weights = craft_model(world.base, world.weights, world.public_images, design)
    model = build_model(architecture)
    load_weights(model, weights)
    return model


@pytest.mark.parametrize("gain", [1e-2, 1e2, 1e6])
def test_the_crafted_model_computes_nearly_what_the_base_does(world, gain: float) -> None:
    base = build_model(world.base)
    load_weights(base, world.weights)
    with torch.no_grad():
        change = built(world, replace(DESIGN, loudness=Loudness(gain)))(world.private_images) - base(
            world.private_images
        )
    assert 0 < float(change.abs().max()) <= DESIGN.max_logit_change * 1.001


def test_exactly_one_bin_is_active_for_every_image(world) -> None:
    model = built(world)
    extremes = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    images = torch.cat([world.private_images, world.public_images, extremes])
    with torch.no_grad():
        level = model.planted(model.spectrum(images))
    active = ((level > 0) & (level < model.ceiling)).sum(dim=1)
    assert active.tolist() == [1] * len(images)


@pytest.mark.parametrize("centred", [True, False])
def test_a_records_gradient_is_its_code_in_exactly_one_row(world, centred: bool) -> None:
    model = built(world, replace(DESIGN, centred=centred))
    summer = plain_summer(model, max_physical_batch=1)
    for image in world.private_images[:10]:
        gradient = summer(image[None], torch.tensor([1])).total
        rows = torch.nonzero(gradient["planted.bias"]).flatten()
        assert len(rows) == 1
        assert torch.nonzero(gradient["planted.weight"].abs().sum(dim=1)).flatten().tolist() == rows.tolist()
        code = model.spectrum(image[None])[0].double()
        expected = gradient["planted.bias"][rows[0]] * code
        torch.testing.assert_close(gradient["planted.weight"][rows[0]], expected, rtol=1e-4, atol=1e-4)


def test_the_share_of_the_gradient_norm_grows_with_the_gain_towards_one(world) -> None:
    labels = torch.arange(8) % 2
    shares = [
        planted_share(
            *craft_model(world.base, world.weights, world.public_images, replace(DESIGN, loudness=Loudness(gain))),
            world.private_images[:8],
            labels,
        )
        for gain in (1e-3, 1e-1, 1e1, 1e3)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.999


def test_the_geometry_can_be_read_back_from_the_weights(world) -> None:
    architecture, weights = craft_model(world.base, world.weights, world.public_images, DESIGN)
    code, bins = fit_code(world.public_images, whitening=DESIGN.whitening), cut_bins(world.public_images, DESIGN.bins)
    read = read_code(architecture.args, weights)
    assert read.image_shape == code.image_shape
    for planned, found in ((code, read), (bins, read_bins(architecture.args, weights, read))):
        for field in ("gains", "centre") if planned is code else ("lower", "upper"):
            torch.testing.assert_close(getattr(found, field), getattr(planned, field), rtol=1e-4, atol=1e-5)


@given(bins=st.integers(2, 300), kind=st.sampled_from(["equal", "dark", "spread"]))
def test_cuts_ascend_and_leave_no_image_outside(bins: int, kind: str) -> None:
    level = {"equal": torch.full((9,), 0.5), "dark": torch.zeros(9), "spread": torch.linspace(0, 1, 9)}[kind]
    cuts = cut_bins(level[:, None, None, None].expand(-1, 1, 11, 11), bins)
    assert len(cuts.lower) == len(cuts.upper) == bins
    assert torch.equal(cuts.lower[1:], cuts.upper[:-1])
    assert float((cuts.upper - cuts.lower).min()) > 0
    assert float(cuts.lower[0]) < 0
    assert float(cuts.upper[-1]) > 1


@given(logits=st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_no_label_is_silent_whatever_the_prediction(logits: list[float]) -> None:
    voices = class_voices(len(logits))
    probability = functional.softmax(torch.tensor(logits, dtype=torch.float64), dim=0)
    assert float((voices - probability @ voices.double()).abs().min()) > 1e-6
