"""The main job with nets of MONAI's: a DP round after conversion, what is told of it, and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.models import MONAI, build_model, read_weights
from hbdp_fed.types import ModelSpec
from simulations.run import main
from tests.simulations.small_runs import BARE
from tests.simulations.test_presets import write_decathlon

ROUND = [
    "engine=inprocess", "clients=2", "eps=8", "training.rounds=1", "training.local_steps=2",
    "training.expected_batch=4", "model=monai", *BARE,
]  # fmt: skip
PHANTOM = [*ROUND, "data.num_train=40", "data.num_val=20", "data.num_test=20", "data.image_size=32"]
THIN = "model.args={init_features: 8, growth_rate: 4}"
LITTLE = ["model.net=resnet10", "model.args={widen_factor: 0.1}"]


def trained(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, f"run_dir={folder}"]) == 0
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(summary, dict)
    return summary


def assert_private_round(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """One round of DP-SGD at both hospitals, and a card from which the released net can be built."""
    assert summary["rounds"] == 1
    assert [entry["eps_rdp"] for entry in summary["privacy"]["hospitals"]] == [pytest.approx(8, rel=1e-2)] * 2
    assert all(entry["noise_multiplier"] > 0 for entry in summary["privacy"]["hospitals"])
    assert summary["participation"]["failed"] == 0
    card = json.loads((folder / "card.json").read_text(), parse_constant=pytest.fail)
    net = build_model(ModelSpec(card["architecture"]["name"], card["architecture"]["args"]))
    released = read_weights(folder / "model.safetensors")
    assert {name: value.shape for name, value in net.named_parameters()} == {
        name: value.shape for name, value in released.items()
    }
    assert card["model"]["gradient_error"] == summary["model_gradient_error"] < 1e-9
    assert card["model"]["replaced"] == summary["model_replaced"]
    return {(kind["before"], kind["after"]): kind["modules"] for kind in summary["model_replaced"]}


def test_densenet121_trains_a_private_round_and_tells_what_was_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = trained(tmp_path / "run", *PHANTOM, "model.net=DenseNet121", THIN)
    assert summary["model"] == f"{MONAI}.DenseNet121"
    replaced = assert_private_round(tmp_path / "run", summary)
    assert len(replaced["BatchNorm2d", "GroupNorm"]) == 121
    assert "features.denseblock4.denselayer16.layers.norm1" in replaced["BatchNorm2d", "GroupNorm"]
    shown = capsys.readouterr()
    told = shown.out + shown.err
    assert "monai.DenseNet121: made ready for per-record clipping: 121 x BatchNorm2d -> GroupNorm, 121 x ReLU" in told
    assert "per-record gradients verified on random images: relative error" in told


@pytest.mark.parametrize(
    ("net", "args"),
    [("SegResNet", "{init_filters: 8, blocks_down: [1, 1], blocks_up: [1]}"), ("DynUNet", "{filters: [4, 8, 16]}")],
)
def test_segmenters_train_a_private_round_on_volumes(
    net: str, args: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_decathlon(
        tmp_path, "Task04_Hippocampus", modality="MRI", classes=("background", "a", "b"), volumes=12, shape=(16, 16, 16)
    )
    monkeypatch.setenv("HBDP_DATA", str(tmp_path))
    summary = trained(
        tmp_path / "run", *ROUND, "data=msd", "data.image_size=[16,16,16]", f"model.net={net}", f"model.args={args}"
    )
    assert summary["model"] == f"{MONAI}.{net}"
    replaced = assert_private_round(tmp_path / "run", summary)
    assert {after for _, after in replaced} <= {"ReLU out of place", "LeakyReLU out of place"}
    assert summary["utility"]["dice"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("net", ["SegResNet", "DynUNet"])
def test_segmenters_train_a_private_round_on_real_hippocampi(net: str, hbdp_data: Path, tmp_path: Path) -> None:
    assert hbdp_data.is_dir()
    summary = trained(
        tmp_path / "run", *ROUND, "data=msd", "data.on_bad_record=skip", "data.image_size=[24,32,24]",
        "training.expected_batch=2", f"model.net={net}",
    )  # fmt: skip
    assert_private_round(tmp_path / "run", summary)


@pytest.mark.slow
def test_densenet121_at_its_full_width_trains_a_private_round(tmp_path: Path) -> None:
    assert_private_round(tmp_path / "run", trained(tmp_path / "run", *PHANTOM, "model.net=DenseNet121"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.net=densenet121"], "model.net: MONAI has no classifier or segmenter 'densenet121'; did you mean"),
        (["model.net=SegResNet"], "the data set asks for one answer an image"),
        (["model.net=VQVAE"], "it gives a tuple, not one tensor of a number for each record and class"),
        (["model.args={growth: 4}"], "model.args: DenseNet121 has no keyword 'growth'; did you mean 'growth_rate'?"),
        (["model.args={pretrained: true}"], "error: model.args: pretrained is refused: nothing is downloaded"),
        (["model.args={in_channels: 3}"], "in_channels is not yours to set"),
        (
            ["data.image_size=28"],
            "error: model: monai.DenseNet121 cannot be trained on phantom: Given input size: (512x1x1). Calculated "
            "output size: (512x0x0). Output size is too small; it takes images of 32x32 (data.image_size)",
        ),
        (["federation.site_policy.allowed_models=[cnn]"], "the model 'monai.DenseNet121' is not allowed, only: cnn"),
        (["federation.site_policy.allowed_models=[monai.UNet]"], "the model 'monai.DenseNet121' is not allowed"),
    ],
)  # fmt: skip
def test_a_net_that_cannot_be_trained_is_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PHANTOM, *arguments, f"run_dir={tmp_path / 'run'}"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("allowed", ["monai", "monai.resnet10"])
def test_a_policy_allows_one_net_or_all_of_them(allowed: str, tmp_path: Path) -> None:
    trained(tmp_path / "run", *PHANTOM, *LITTLE, f"federation.site_policy.allowed_models=[{allowed}]")
