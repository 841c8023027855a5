"""Nets that come from elsewhere are tried once before they train; the project's own are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models import fitting_spec
from hbdp_fed.training import LocalSettings, check_clippable, clippable
from hbdp_fed.types import ModelSpec


@pytest.fixture(autouse=True)
def _nothing_tried_yet() -> Iterator[None]:
    clippable._error_of.cache_clear()
    yield
    clippable._error_of.cache_clear()


def unet(classes: int = 3, **args: Any) -> ModelSpec:
    small = {"channels": [4, 8], "strides": [2], "norm": "BATCH"}
    return fitting_spec(
        "monai", in_channels=1, num_classes=classes, image_size=(8, 8), settings={"net": "UNet", "args": small | args}
    )


def tried(spec: ModelSpec, **changes: Any) -> float | None:
    local = LocalSettings(**({"loss": "dice_cross_entropy"} | changes))
    return check_clippable(spec, local, task="segmentation", image_shape=(1, 8, 8), label_shape=(8, 8))


@pytest.mark.parametrize("grad_mode", ["hbdp", "torch_func"])
@pytest.mark.parametrize("loss", ["dice_cross_entropy", "cross_entropy"])
def test_a_converted_net_has_each_records_own_gradient(loss: str, grad_mode: str) -> None:
    error = tried(unet(), loss=loss, grad_mode=grad_mode)
    assert error is not None
    assert error < 1e-10


def test_findings_are_tried_with_labels_of_their_own_kind() -> None:
    spec = fitting_spec(
        "monai", in_channels=1, num_classes=4, image_size=(16, 16),
        settings={"net": "resnet10", "args": {"widen_factor": 0.1}},
    )  # fmt: skip
    local = LocalSettings(loss="binary_cross_entropy", class_weights=(1.0, 2.0, 3.0, 4.0))
    error = check_clippable(spec, local, task="multilabel", image_shape=(1, 16, 16), label_shape=(4,))
    assert error is not None
    assert error < 1e-10


def test_the_projects_own_models_are_not_tried() -> None:
    spec = ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8})
    assert tried(spec) is None


def test_a_net_is_tried_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*_: Any, **__: Any) -> float:
        calls.append(1)
        return 0.0

    monkeypatch.setattr(clippable, "check_record_gradients", counted)
    for _ in range(3):
        tried(unet())
    tried(unet(channels=[4, 4]))
    tried(unet(), grad_mode="torch_func")
    assert len(calls) == 3


def test_what_mixes_records_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x - x.mean(dim=0, keepdim=True))

    monkeypatch.setattr(clippable, "build_model", lambda _: Mixing())
    with pytest.raises(SettingError, match=r"^model\.net: UNet cannot be clipped per record: .*mixes records"):
        tried(unet())


def test_a_parameter_without_a_rule_to_start_from_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(nn.Linear(1, 1).weight.detach())

    monkeypatch.setattr(clippable, "build_model", lambda _: Scaled())
    with pytest.raises(SettingError, match=r"^model\.net: UNet .*no rule to initialise temperature"):
        tried(unet())
