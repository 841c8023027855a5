"""What the gradient of a planted layer holds, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.special import softmax

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.models.planted import PlantedModel
from hbdp_fed.types import ModelSpec

SIDES = (12, 14)
CEILING = 0.75


def planted_model(*, ceiling: float | None, base_scale: float = 1.0, seed: int = 0) -> PlantedModel:
    """In float64, with random weights everywhere, the code's included."""
    base = {"name": "cnn", "args": {"in_channels": 1, "num_classes": 3, "width": 4}}
    args = {"in_channels": 1, "num_classes": 3, "base": base, "image_size": list(SIDES), "rows": 24}
    model = build_model(ModelSpec("planted", {**args, "ceiling": ceiling, "base_scale": base_scale}))
    assert isinstance(model, PlantedModel)
    generator = torch.Generator().manual_seed(seed)
    load_weights(model, initial_weights(model, generator))
    model.double()
    with torch.no_grad():
        model.spectrum.weight.uniform_(0.5, 2.0, generator=generator)
        model.spectrum.bias.uniform_(-0.1, 0.1, generator=generator)
        model.planted.bias.normal_(generator=generator)
        model.readout.weight.normal_(generator=generator)
    return model


def record(seed: int = 1) -> torch.Tensor:
    return torch.rand(1, 1, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen_by_hand(model: PlantedModel, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """u and the rows before their activation, without torch."""
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    seen = weights["spectrum.weight"] * dctn(image[0, 0].numpy(), norm="ortho").ravel() + weights["spectrum.bias"]
    return seen, weights["planted.weight"] @ seen + weights["planted.bias"]


@pytest.mark.parametrize("ceiling", [None, CEILING])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_an_active_rows_gradient_is_the_factor_times_the_code_and_one(ceiling: float | None, label: int) -> None:
    model, image = planted_model(ceiling=ceiling), record()
    torch.nn.functional.cross_entropy(model(image), torch.tensor([label])).backward()

    seen, levels = seen_by_hand(model, image)
    readout = model.readout.weight.detach().numpy()
    with torch.no_grad():
        base = model.base(image)[0].numpy()
    prediction = softmax(base + readout @ np.clip(levels, 0, math.inf if ceiling is None else ceiling))
    factor = readout.T @ (prediction - np.eye(3)[label])
    active = (levels > 0) & (levels < (math.inf if ceiling is None else ceiling))
    assert 2 <= active.sum() < len(levels)

    got = torch.cat([model.planted.weight.grad, model.planted.bias.grad[:, None]], dim=1).numpy()
    np.testing.assert_allclose(got[active], factor[active, None] * np.append(seen, 1.0), rtol=1e-9)
    assert not got[~active].any()


def test_a_saturated_row_adds_its_ceiling_and_passes_nothing() -> None:
    model, image = planted_model(ceiling=CEILING), record()
    with torch.no_grad():
        model.planted.weight.zero_()
        model.planted.bias.copy_(torch.linspace(-2, 3, 24))
    logits = model(image)
    logits.sum().backward()
    bias = model.planted.bias.detach()
    with torch.no_grad():
        expected = model.base(image)[0] + model.readout.weight @ bias.clamp(0, CEILING)
    torch.testing.assert_close(logits[0].detach(), expected)
    assert bool((bias > CEILING).any())
    assert torch.equal(torch.nonzero(model.planted.bias.grad), torch.nonzero((bias > 0) & (bias < CEILING)))


def test_without_a_ceiling_a_row_is_an_ordinary_relu() -> None:
    model, image = planted_model(ceiling=None), record()
    _, levels = seen_by_hand(model, image)
    assert levels.max() > 1
    with torch.no_grad():
        expected = model.base(image)[0].numpy() + model.readout.weight.numpy() @ np.maximum(levels, 0)
        np.testing.assert_allclose(model(image)[0].numpy(), expected, rtol=1e-9)


def test_a_base_at_scale_zero_says_nothing_and_has_a_zero_gradient() -> None:
    heard, silenced = planted_model(ceiling=None), planted_model(ceiling=None, base_scale=0.0)
    image = record()
    with torch.no_grad():
        torch.testing.assert_close(silenced(image), heard(image) - heard.base(image))
    torch.nn.functional.cross_entropy(silenced(image), torch.tensor([1])).backward()
    # DP-SGD needs a gradient of every parameter, even of those that do nothing.
    assert all(value.grad is not None and not value.grad.any() for value in silenced.base.parameters())
    assert silenced.planted.weight.grad is not None
    assert silenced.planted.weight.grad.any()


def test_a_model_built_from_json_computes_the_same() -> None:
    args = {"in_channels": 2, "num_classes": 2, "image_size": [11, 12], "rows": 3, "ceiling": None, "base_scale": 0.5}
    base = {"name": "cnn", "args": {"in_channels": 2, "num_classes": 2, "width": 4}}
    spec = ModelSpec("planted", {**args, "base": base})
    models = [build_model(spec), build_model(ModelSpec.from_json(spec.to_json()))]
    weights = initial_weights(models[0], torch.Generator().manual_seed(3))
    for model in models:
        load_weights(model, weights)
    images = torch.rand(2, 2, 11, 12, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(models[0](images), models[1](images))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"ceiling": -1.0},
        {"ceiling": math.inf},
        {"ceiling": math.nan},
        {"base_scale": -0.1},
        {"base_scale": math.inf},
        {"base_scale": math.nan},
    ],
    ids=str,
)
def test_arguments_that_are_no_numbers_to_compute_with_are_refused_by_name(wrong: dict[str, float]) -> None:
    base = {"name": "cnn", "args": {"in_channels": 1, "num_classes": 2, "width": 4}}
    args = {"in_channels": 1, "num_classes": 2, "base": base, "image_size": [12, 12], "rows": 4, "ceiling": 1.0}
    with pytest.raises(SettingError, match=f"model.planted.*{next(iter(wrong))}"):
        build_model(ModelSpec("planted", args | wrong))
