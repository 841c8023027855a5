"""Models are built from specifications, start from their own stream, and are stored without loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn

from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, read_weights, save_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped, randomised

CNN = ModelSpec("cnn", {"in_channels": 3, "num_classes": 2, "width": 8})


def test_the_cnn_has_one_logit_a_class_and_nothing_that_mixes_records() -> None:
    model = build_model(CNN)
    images = torch.rand(4, 3, 20, 28)
    assert model(images).shape == (4, 2)
    assert ModuleValidator.validate(model, strict=False) == []
    together, alone = model(images), torch.cat([model(images[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)
    assert dict(model.named_buffers()) == {}


VOLUMES = ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4, "spatial_dims": 3})


def test_the_cnn_of_volumes_has_one_logit_a_class_and_nothing_that_mixes_records() -> None:
    model = build_model(VOLUMES)
    volumes = torch.rand(4, 1, 8, 9, 20)
    assert model(volumes).shape == (4, 3)
    assert ModuleValidator.validate(model, strict=False) == []
    torch.testing.assert_close(model(volumes), torch.cat([model(volumes[i : i + 1]) for i in range(4)]))
    assert dict(model.named_buffers()) == {}


@pytest.mark.parametrize("reference", ["torch_func", "opacus"])
def test_the_cnn_of_volumes_is_clipped_exactly(reference: str) -> None:
    model, volumes = randomised(build_model(VOLUMES)), torch.rand(4, 1, 8, 9, 10, dtype=torch.float64)
    assert_same(clipped(model, volumes, max_physical_batch=3), clipped(model, volumes, grad_mode=reference))


@pytest.mark.parametrize(("spec", "shape"), [(CNN, (1, 3, 7, 20)), (CNN, (1, 3, 8, 8, 8)), (VOLUMES, (1, 1, 8, 8, 7))])
def test_the_cnn_refuses_images_of_another_shape_or_too_small(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must have [23] spatial dimensions of at least 8 .* got shape"):
        build_model(spec)(torch.rand(shape))


def test_initial_weights_come_from_the_generator_alone() -> None:
    torch.rand(3)
    first = initial_weights(build_model(CNN), generator(0, "w"))
    again = initial_weights(build_model(CNN), generator(0, "w"))
    other = initial_weights(build_model(CNN), generator(1, "w"))
    assert weights_sha256(first) == weights_sha256(again) != weights_sha256(other)


def test_convolutions_start_with_hes_variance() -> None:
    weights = initial_weights(
        build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 32})), generator(0)
    )
    kernel = weights["features.8.weight"]  # 128 x 64 x 3 x 3
    fan_in = kernel[0].numel()
    assert float(kernel.var()) == pytest.approx(2 / fan_in, rel=0.05)


def test_the_draws_come_in_the_order_of_the_layers() -> None:
    model, stream = build_model(CNN), generator(0, "w")
    found = initial_weights(model, generator(0, "w"))
    for name in ("features.0.weight", "features.4.weight", "features.8.weight", "head.weight"):
        fan_in = found[name][0].numel()
        expected = torch.empty_like(found[name]).normal_(0, math.sqrt(2 / fan_in), generator=stream)
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.ConvTranspose1d(32, 40, kernel_size=3, padding=1), (64, 32, 12)),
        (nn.ConvTranspose2d(64, 16, kernel_size=2, stride=2), (16, 64, 6, 6)),
        (nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1, groups=4), (16, 64, 9, 9)),
        (nn.ConvTranspose3d(64, 24, kernel_size=2, stride=2), (8, 64, 3, 3, 3)),
    ],
)
def test_transposed_convolutions_start_so_that_outputs_have_twice_the_inputs_variance(
    layer: nn.Module, inputs: tuple[int, ...]
) -> None:
    stream = generator(0, "transposed")
    load_weights(layer, initial_weights(layer, stream))
    with torch.no_grad():
        outputs = layer(torch.randn(inputs, generator=stream))
    # The border sums fewer inputs.
    inside = outputs[(slice(None), slice(None), *[slice(1, -1)] * (outputs.dim() - 2))]
    assert float(inside.var()) == pytest.approx(2, rel=0.1)


def test_parametric_relus_start_at_their_own_slope() -> None:
    weights = initial_weights(nn.Sequential(nn.PReLU(), nn.PReLU(5, init=0.1)), generator(0))
    assert torch.equal(weights["0.weight"], torch.tensor([0.25]))
    assert torch.equal(weights["1.weight"], torch.full((5,), 0.1))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_start_from_a_standard_normal_with_zeros_for_padding(kind: type[nn.Module]) -> None:
    weight = initial_weights(kind(500, 40, padding_idx=3), generator(0))["weight"]
    assert float(weight.mean()) == pytest.approx(0, abs=0.03)
    assert float(weight.std()) == pytest.approx(1, rel=0.03)
    assert torch.equal(weight[3], torch.zeros(40))


@pytest.mark.parametrize("norm", [nn.LayerNorm((2, 3, 4)), nn.RMSNorm((3, 4)), nn.GroupNorm(2, 6)])
def test_norms_start_as_plain_norms_whatever_their_shape(norm: nn.Module) -> None:
    for name, value in initial_weights(norm, generator(0)).items():
        assert torch.equal(value, torch.ones_like(value) if name == "weight" else torch.zeros_like(value)), name


@pytest.mark.parametrize("name", ["cls_token", "position_embeddings", "relative_position_bias_table"])
def test_what_transformers_add_starts_small_and_seeded(name: str) -> None:
    module = nn.Module()
    module.register_parameter(name, nn.Parameter(torch.zeros(50, 40)))
    value = initial_weights(module, generator(0))[name]
    assert float(value.mean()) == pytest.approx(0, abs=0.002)
    assert float(value.std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(value, initial_weights(module, generator(0))[name])


def test_a_layer_without_a_rule_is_not_left_to_an_unseeded_draw() -> None:
    with pytest.raises(ValueError, match="no rule to initialise"):
        initial_weights(nn.Sequential(nn.LSTM(3, 4)), generator(0))


def test_an_unknown_model_and_a_bad_argument_name_the_setting() -> None:
    with pytest.raises(SettingError, match=r"model: 'nosuch' is not known; choose one of: .*cnn"):
        build_model(ModelSpec("nosuch"))
    with pytest.raises(SettingError, match="width must be a positive multiple of 4"):
        build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 5}))
    with pytest.raises(SettingError, match="spatial_dims must be 2 or 3, got 1"):
        build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "spatial_dims": 1}))


def test_loading_checks_names_and_shapes() -> None:
    model = build_model(CNN)
    weights = dict(initial_weights(model, generator(0)))
    with pytest.raises(ValueError, match="on one side only: extra"):
        load_weights(model, {**weights, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"head\.bias has shape"):
        load_weights(model, {**weights, "head.bias": torch.zeros(5)})


def test_storage_keeps_every_bit(tmp_path: Path) -> None:
    weights = {"b": torch.randn(3, 4, dtype=torch.float64), "a": torch.randn(2)}
    save_weights(tmp_path / "deep" / "w.safetensors", weights)
    assert weights_sha256(read_weights(tmp_path / "deep" / "w.safetensors")) == weights_sha256(weights)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_the_digest_sees_a_single_bit_and_the_type() -> None:
    weights = {"a": torch.zeros(4, dtype=torch.float64)}
    changed = {"a": weights["a"].clone()}
    changed["a"][2] = 5e-324
    assert len({weights_sha256(w) for w in (weights, changed, {"a": weights["a"].float()})}) == 3


def test_a_missing_or_broken_file_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"none\.safetensors: there is no such file"):
        read_weights(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataFileError, match=r"broken\.safetensors: not a readable"):
        read_weights(tmp_path / "broken.safetensors")
    with pytest.raises(DataFileError, match=f"{tmp_path.name}: not a readable"):
        read_weights(tmp_path)
