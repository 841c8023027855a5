"""Models are built from specifications, start from their own stream, and are stored without loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn

from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, read_weights, save_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec

CNN = ModelSpec("cnn", {"in_channels": 3, "num_classes": 2, "width": 8})


def test_the_cnn_has_one_logit_a_class_and_nothing_that_mixes_records() -> None:
    model = build_model(CNN)
    images = torch.rand(4, 3, 20, 28)
    assert model(images).shape == (4, 2)
    assert ModuleValidator.validate(model, strict=False) == []
    together, alone = model(images), torch.cat([model(images[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)
    assert dict(model.named_buffers()) == {}


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


def test_a_layer_without_a_rule_is_not_left_to_an_unseeded_draw() -> None:
    with pytest.raises(ValueError, match="no rule to initialise"):
        initial_weights(nn.Sequential(nn.LSTM(3, 4)), generator(0))


def test_an_unknown_model_and_a_bad_argument_name_the_setting() -> None:
    with pytest.raises(SettingError, match=r"model: 'nosuch' is not known; choose one of: .*cnn"):
        build_model(ModelSpec("nosuch"))
    with pytest.raises(SettingError, match="width must be a positive multiple of 4"):
        build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 5}))


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
