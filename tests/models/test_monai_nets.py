"""MONAI's classifiers and segmenters by name: built for the task, converted, and clipped exactly."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hbdp_fed.dpsgd import record_losses
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, fitting_spec, initial_weights, load_weights, replaced_in, weights_sha256
from hbdp_fed.models.monai_nets import converted_monai_net, monai_nets
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped


@dataclass(frozen=True)
class Case:
    """A net for images of these sides."""

    net: str
    size: tuple[int, ...]
    dense: bool
    args: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> ModelSpec:
        return spec(self.net, self.size, **self.args)

    def __str__(self) -> str:
        return f"{self.net}-{len(self.size)}d"


THIN_DENSE = {"init_features": 8, "growth_rate": 4}
WORKING = [
    Case("DenseNet121", (32, 32), False, THIN_DENSE),
    Case("EfficientNetBN", (32, 32), False),
    Case("SEResNet50", (32, 32), False),
    Case("resnet10", (16, 16), False, {"widen_factor": 0.25}),
    Case("resnet10", (16, 16, 16), False, {"widen_factor": 0.25}),
    Case("SegResNet", (16, 16), True, {"init_filters": 8}),
    Case("SegResNet", (8, 8, 8), True, {"init_filters": 8}),
    Case("DynUNet", (12, 16), True, {"filters": [4, 8, 16]}),
    Case("DynUNet", (8, 6, 16), True, {"filters": [4, 8, 16]}),
    Case("DynUNet", (8, 8), True, {"filters": [4, 8, 16], "norm_name": "BATCH", "res_block": True, "dropout": 0.2}),
    Case("UNet", (16, 16), True),
    Case("UNet", (8, 8, 8), True, {"channels": [4, 8], "strides": [2], "norm": "BATCH", "num_res_units": 2}),
    Case("AttentionUnet", (8, 8), True, {"channels": [4, 8], "strides": [2]}),
    Case("BasicUNet", (32, 32), True, {"features": [4, 4, 8, 8, 16, 4]}),
    Case("VNet", (16, 16), True),
    Case("HighResNet", (8, 8), True),
    Case("FlexibleUNet", (32, 32), True, {"decoder_channels": [16, 8, 8, 4, 4]}),
]
"""What works, each for a little image. Big ones are the slow test's."""


def spec(net: str, size: Sequence[int], **args: Any) -> ModelSpec:
    return fitting_spec("monai", in_channels=2, num_classes=3, image_size=size, settings={"net": net, "args": args})


def seeded(case: Case) -> nn.Module:
    model = build_model(case.spec())
    load_weights(model, initial_weights(model, generator(0, "monai")))
    return model.double()


def draw(case: Case, count: int = 3) -> Tensor:
    return torch.rand(count, 2, *case.size, dtype=torch.float64, generator=generator(0, "images"))


HEAVY = ("SEResNet50", "EfficientNetBN", "FlexibleUNet", "VNet", "HighResNet")
"""Half a second each or more, which adds up."""
WORKS = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case.net in HEAVY else [], id=str(case)) for case in WORKING],
)


@WORKS
def test_every_record_or_pixel_has_one_logit_a_class_whoever_else_is_in_the_batch(case: Case) -> None:
    model, images = seeded(case), draw(case)
    logits = model.train()(images)
    assert logits.shape == (3, 3, *(case.size if case.dense else ()))
    torch.testing.assert_close(logits[1:2], model(images[1:2]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits, model.eval()(images), rtol=1e-12, atol=1e-12)


@WORKS
def test_nothing_is_left_that_mixes_or_remembers_records(case: Case) -> None:
    model = build_model(case.spec())
    assert ModuleValidator.validate(model, strict=False) == []
    assert not any(name.endswith(("running_mean", "running_var")) for name, _ in model.named_buffers())
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    names = {name for name, _ in model.named_modules()}
    assert {one.name for one in replaced_in(case.spec())} <= names


QUICK = [case for case in WORKING if case.net in ("SegResNet", "DynUNet", "UNet", "AttentionUnet")]


def assert_clipped_exactly(case: Case, count: int = 3) -> None:
    model, images = seeded(case), draw(case, count)
    labels = torch.randint(3, (count, *(case.size if case.dense else ())), generator=generator(0, "labels"))
    expected = clipped(model, images, labels=labels, grad_mode="torch_func", loss=record_losses)
    assert_same(clipped(model, images, labels=labels, loss=record_losses), expected, relative=1e-8)


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_segmenters_are_clipped_as_torch_func_clips_them(case: Case) -> None:
    assert_clipped_exactly(case)


def test_a_thin_densenet121_is_clipped_as_torch_func_clips_it() -> None:
    assert_clipped_exactly(WORKING[0], count=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        *(case for case in WORKING if case not in QUICK),
        Case("DenseNet121", (32, 32), False),
        Case("SegResNet", (32, 32), True),
        Case("SegResNet", (16, 16, 16), True),
        Case("DynUNet", (32, 32), True),
        Case("DynUNet", (16, 16, 16), True),
        Case("resnet18", (32, 32), False),
        Case("resnet50", (32, 32), False),
        Case("SEResNext50", (32, 32), False),
        Case("MedNeXt", (32, 32), True),
        Case("Quicknat", (32, 32), True),
        Case("SegResNetDS", (32, 32), True),
    ],
    ids=str,
)
def test_every_other_net_is_clipped_as_torch_func_clips_it(case: Case) -> None:
    assert_clipped_exactly(case)


@pytest.mark.parametrize(
    ("net", "args"),
    [
        ("BasicUNetPlusPlus", {}),
        ("SegResNetDS2", {}),
        ("SegResNetVAE", {"input_image_size": [32, 32]}),
        ("VQVAE", {}),
        ("DynUNet", {"deep_supervision": True}),
    ],
)
def test_nets_of_several_tensors_are_those_that_the_manual_lists(net: str, args: dict[str, Any]) -> None:
    with torch.device("meta"), torch.no_grad():
        outputs = build_model(spec(net, (32, 32), **args))(torch.zeros(1, 2, 32, 32))
    assert not isinstance(outputs, Tensor) or outputs.shape != (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("net", "args"),
    [
        ("ViT", {"patch_size": 8, "classification": True}),
        ("UNETR", {}),
        ("SwinUNETR", {"feature_size": 12}),
        ("DAF3D", {}),
        ("TorchVisionFCModel", {}),
    ],
)
def test_a_net_that_needs_a_library_names_it(net: str, args: dict[str, Any]) -> None:
    library = "torchvision" if net in ("DAF3D", "TorchVisionFCModel") else "einops"
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    with pytest.raises((SettingError, ImportError), match=rf"No module named '{library}'"):
        build_model(spec(net, (64, 64), **args))(torch.zeros(1, 2, 64, 64))


def test_its_weights_have_the_names_and_shapes_of_monais_own() -> None:
    from monai.networks.nets import DenseNet121

    theirs = DenseNet121(spatial_dims=2, in_channels=2, out_channels=3, **THIN_DENSE)
    ours = build_model(WORKING[0].spec())
    assert {name: value.shape for name, value in theirs.named_parameters()} == {
        name: value.shape for name, value in ours.named_parameters()
    }


def test_a_hospital_builds_the_same_net_from_the_specifications_text() -> None:
    case = WORKING[7]
    here = build_model(case.spec())  # which moves the global random state on, as another process has another one
    there = build_model(ModelSpec.from_json(case.spec().to_json()))
    assert str(here) == str(there)
    first, second = (initial_weights(model, generator(0, "w")) for model in (here, there))
    assert weights_sha256(first) == weights_sha256(second)


def test_it_is_built_without_memory_where_only_shapes_are_asked_for() -> None:
    with torch.device("meta"):
        model = build_model(WORKING[0].spec())
        assert model(torch.zeros(1, 2, 32, 32)).shape == (1, 3)
    assert all(value.is_meta for value in model.parameters())


@pytest.mark.parametrize("net", ["EfficientNetBN", "DenseNet121", "resnet10"])
def test_nothing_is_downloaded(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with torch.device("meta"):
        build_model(spec(net, (32, 32)))


@pytest.mark.parametrize(
    ("size", "strides"),
    [
        ((64, 64), [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]]),
        ((40, 56, 40), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]),
        ((64, 64, 8), [[1, 1, 1], [2, 2, 2], [2, 2, 1], [2, 2, 1], [2, 2, 1]]),
        ((29, 31), [[1, 1], [1, 1], [1, 1]]),
    ],
)
def test_dynunet_halves_each_axis_as_often_as_it_can_exactly(size: tuple[int, ...], strides: list[list[int]]) -> None:
    with torch.device("meta"):
        net = build_model(spec("DynUNet", size))
        assert net(torch.zeros(1, 2, *size)).shape == (1, 3, *size)
    assert net.strides == strides
    assert net.upsample_kernel_size == strides[1:]
    assert net.kernel_size == [[3] * len(size)] * len(strides)


def test_a_default_that_follows_from_the_image_can_be_overridden() -> None:
    ones = [[1, 1]] * 3
    net = build_model(spec("DynUNet", (64, 64), kernel_size=[[1, 1]] * 3, strides=ones, upsample_kernel_size=ones[1:]))
    assert net.strides == ones


@pytest.mark.parametrize(
    ("net", "args", "message"),
    [
        ("densenet121", {}, r"^model\.net: .* 'densenet121'; did you mean 'DenseNet121'\?"),
        ("SegResnet", {}, r"did you mean 'SegResNet'\?"),
        ("os", {}, r"no classifier or segmenter 'os'; "),
        ("ResNetBlock", {}, r"no classifier or segmenter 'ResNetBlock'"),
        ("VoxelMorph", {}, r"no classifier or segmenter 'VoxelMorph'"),
        ("DenseNet121", {"growth_rat": 4}, r"^model\.args: DenseNet121 has no .*; did you mean 'growth_rate'\?"),
        ("SegResNet", {"growth_rate": 4}, r"^model\.args: SegResNet has no keyword 'growth_rate'; choose one of: act,"),
        ("resnet10", {"shortcut": "B"}, r"did you mean 'shortcut_type'\?"),
        ("DenseNet121", {"in_channels": 1}, "in_channels is not yours to set: it follows from the data"),
        ("EfficientNetBN", {"num_classes": 1}, "num_classes is not yours to set"),
        ("DenseNet121", {"pretrained": True}, "pretrained is refused: nothing is downloaded"),
        ("EfficientNetBN", {"pretrained": False}, "pretrained is refused"),
        ("HoVerNet", {"pretrained_url": "http://example.org/x"}, "pretrained_url is refused"),
        ("EfficientNetBN", {"model_name": "b0"}, r"^model\.args: EfficientNetBN cannot be built: invalid model_name"),
        ("resnet10", {"shortcut_type": "Z"}, r"resnet10 cannot be built: "),
        ("Classifier", {}, r"Classifier cannot be built: .*missing 2 required .*'channels' and 'strides'"),
        ("SegResNet", {"init_filters": 10**9}, "init_filters must lie within 10000 of zero, got 1000000000"),
        ("DenseNet121", {"block_config": [10**9] * 4}, "block_config must lie within 10000"),
        ("DenseNet121", {"block_config": [1] * 65}, "block_config may have at most 64 entries, got 65"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest_that_is(net: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_model(spec(net, (32, 32), **args))


def test_a_net_of_many_tensors_is_no_candidate_where_its_signature_tells() -> None:
    names = monai_nets()
    assert {case.net for case in WORKING} <= set(names)
    assert list(names) == sorted(set(names))
    # One name a net: the further spellings that MONAI gives its classes are not listed.
    assert not {"Densenet121", "densenet121", "DynUnet", "Unet", "SEresnet50"} & set(names)


@pytest.mark.parametrize("spatial_dims", [1, 4])
def test_other_dimensions_than_two_and_three_are_refused(spatial_dims: int) -> None:
    with pytest.raises(SettingError, match="spatial_dims must be 2 or 3"):
        converted_monai_net(
            "UNet", in_channels=1, num_classes=2, spatial_dims=spatial_dims, image_size=[16] * spatial_dims
        )
