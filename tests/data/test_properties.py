"""Which property a setting names, and which records have it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hbdp_fed.data import ImageDataset, Records, check_property, load_dataset, property_called
from hbdp_fed.errors import SettingError


@pytest.fixture(scope="module")
def phantom() -> ImageDataset:
    return load_dataset("phantom", options={"num_train": 8, "num_val": 12, "num_test": 4})


def with_attribute(dataset: ImageDataset, values: list[str]) -> ImageDataset:
    return replace(dataset, val=replace(dataset.val, attributes={"sex": np.array(values)}))


def test_of_a_binary_task_it_is_the_finding(phantom: ImageDataset) -> None:
    found = property_called(None, phantom)
    assert found.words == f"label={phantom.class_names[1]}"
    assert torch.equal(found.of(phantom.val), phantom.val.labels == 1)


def test_of_several_classes_it_is_the_most_frequent_one(phantom: ImageDataset) -> None:
    labels = torch.tensor([2] * 5 + [0] * 4 + [1] * 3)
    several = replace(phantom, task="multiclass", class_names=("a", "b", "c"), val=replace(phantom.val, labels=labels))
    assert property_called(None, several).words == "label=c"
    assert torch.equal(property_called("b", several).of(several.val), labels == 1)


def test_findings_and_outlines_are_classes_too() -> None:
    images = torch.zeros(3, 1, 2, 2)
    findings = Records(images, torch.tensor([[0, 1], [1, 0], [1, 1]]))
    outlines = Records(images, torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [2, 1]]]))
    many = ImageDataset("x", "multilabel", ("a", "b"), findings, findings, findings)
    assert property_called("b", many).of(findings).tolist() == [True, False, True]
    pixels = ImageDataset("x", "segmentation", ("rest", "liver", "lesion"), outlines, outlines, outlines)
    assert property_called(None, pixels).of(outlines).tolist() == [True, False, True]


def test_an_attribute_has_a_value_or_its_most_frequent_one(phantom: ImageDataset) -> None:
    dataset = with_attribute(phantom, ["female"] * 7 + ["male"] * 5)
    assert property_called("sex", dataset).words == "sex=female"
    found = property_called("sex=male", dataset)
    assert found.words == "sex=male"
    assert found.of(dataset.val).tolist() == [False] * 7 + [True] * 5


@pytest.mark.parametrize(("wanted", "message"), [("sx", "sex"), ("sex=mal", "sex=male"), ("lesio", "lesion")])
def test_what_does_not_exist_is_refused_with_what_does(wanted: str, message: str, phantom: ImageDataset) -> None:
    with pytest.raises(SettingError, match=rf"adversary\.property.*{message}"):
        property_called(wanted, with_attribute(phantom, ["female"] * 7 + ["male"] * 5))


def test_what_all_public_records_have_tells_nothing(phantom: ImageDataset) -> None:
    dataset = with_attribute(phantom, ["female"] * 12)
    with pytest.raises(SettingError, match=r"adversary\.property.*all of the public records have sex=female"):
        check_property(property_called("sex", dataset), dataset.val)
    check_property(property_called(None, phantom), phantom.val)
