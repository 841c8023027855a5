"""The card holds what is needed to ask the model something, and is refused where it does not."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hbdp_fed.errors import DataFileError
from hbdp_fed.models import build_model, load_weights, read_weights, save_weights, weights_sha256
from hbdp_fed.report import read_card, run_card
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import ModelSpec
from tests.report.test_run_report import attacked, full

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4, "spatial_dims": 2})


def released(folder: Path) -> dict[str, Any]:
    """A model, and its card beside it."""
    weights = {name: value.detach() for name, value in build_model(SPEC).named_parameters()}
    save_weights(folder / "model.safetensors", weights)
    summary = full() | {"model_sha256": weights_sha256(weights)}
    card = run_card(
        summary, architecture=SPEC, shape=(1, 28, 28), model_file=folder / "model.safetensors",
        preparation={"kind": "array", "words": "divided by 255", "details": {}}, licence="CC BY 4.0",
        settings={"eps": float("inf")}, environment={"python": "3.11.7"},
    )  # fmt: skip
    (folder / "card.json").write_text(dumps(card))
    return card


def test_a_model_is_built_and_asked_by_its_card_alone(tmp_path: Path) -> None:
    released(tmp_path)
    card = read_card(tmp_path)
    model = build_model(ModelSpec(card["architecture"]["name"], card["architecture"]["args"]))
    weights = read_weights(tmp_path / card["model_file"])
    load_weights(model, weights)
    assert weights_sha256(weights) == card["model_sha256"]
    assert card["model_file_sha256"] == hashlib.sha256((tmp_path / card["model_file"]).read_bytes()).hexdigest()
    assert model(torch.zeros(1, *card["input"]["shape"])).shape == (1, len(card["class_names"]))
    assert card["input"]["range"] == [0.0, 1.0]
    assert card["point"] == {"threshold": 0.4375}


def test_the_card_is_strict_json_and_has_what_was_promised_and_measured(tmp_path: Path) -> None:
    card = released(tmp_path)
    again = json.loads(json.dumps(card, allow_nan=False))
    assert again == card
    assert again["settings"]["eps"] == "inf"
    assert again["utility"]["test"]["mcc"] == {"value": 0.512, "ci95": pytest.approx([0.472, 0.552])}
    assert again["data"]["licence"] == "CC BY 4.0"
    risk = run_card(attacked() | {"task": "binary", "class_names": ["a", "b"]}, architecture=SPEC, shape=(1, 28, 28))[
        "risk"
    ]
    assert risk["worst_case"]["bound"] == 0.25
    assert [attack["success_rate"] for attack in risk["realistic"]["attacks"]] == [0.525, 0.463]
    assert "candidate images" in risk["worst_case"]["adversary"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"kind": "sweep"}, 'must be "run_card"'),
        ({"schema": 2}, "this version reads 1"),
        ({"architecture": None}, "lacks architecture"),
        ({"architecture": {"name": "cnn"}}, "a name and args"),
        ({"input": {"shape": [1, 0, 28]}}, "positive whole numbers"),
        ({"task": "poetry"}, "known are: binary"),
        ({"model_file": "../model.safetensors"}, "beside the card"),
        ({"point": [0.5]}, "lacks point"),
    ],
)
def test_what_is_no_card_is_refused_with_the_reason(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    card = copy.deepcopy(released(tmp_path)) | changed
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataFileError, match=says):
        read_card(tmp_path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="there is no such file"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(DataFileError, match="not a readable JSON"):
        read_card(tmp_path / "card.json")
