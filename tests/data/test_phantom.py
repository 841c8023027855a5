"""The phantom: its contract, that it repeats, and that it is a task worth training and attacking on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from skimage.metrics import structural_similarity  # type: ignore[import-untyped,unused-ignore]
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.types import ModelSpec

SMALL: dict[str, int] = {"num_train": 40, "num_val": 10, "num_test": 20}

DIGEST_PROGRAM = """
import hashlib, torch
from hbdp_fed.data.phantom import load_phantom
torch.manual_seed(99); torch.rand(7)
train = load_phantom(num_train=40, num_val=10, num_test=20).train
print(hashlib.sha256(train.images.numpy().tobytes() + train.masks.numpy().tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def phantom() -> ImageDataset:
    return load_phantom()


def ssim(image: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(structural_similarity(image, other, data_range=1.0))  # type: ignore[no-untyped-call]


def splits(dataset: ImageDataset) -> list[Records]:
    return [dataset.train, dataset.val, dataset.test]


def test_has_the_promised_shapes_types_and_ranges(phantom: ImageDataset) -> None:
    assert (phantom.name, phantom.task, phantom.class_names) == ("phantom", "binary", ("healthy", "lesion"))
    assert [len(records) for records in splits(phantom)] == [2000, 400, 1000]
    for records in splits(phantom):
        assert records.masks is not None
        assert records.images.dtype == torch.float32
        assert records.labels.dtype == torch.int64
        assert records.masks.dtype == torch.bool
        assert records.images.shape == records.masks.shape == (len(records), 1, 28, 28)
        assert records.images.min() >= 0
        assert records.images.max() <= 1


def test_half_of_each_split_has_a_lesion(phantom: ImageDataset) -> None:
    for records in splits(phantom):
        assert int(records.labels.sum()) == len(records) // 2


def test_exactly_the_lesions_have_an_outline(phantom: ImageDataset) -> None:
    for records in splits(phantom):
        assert records.masks is not None
        assert torch.equal(records.masks.flatten(1).any(dim=1), records.labels.bool())


@pytest.mark.parametrize("image_size", [16, 21, 64])
def test_no_lesion_is_lost_at_other_sizes(image_size: int) -> None:
    train = load_phantom(num_train=400, num_val=2, num_test=2, image_size=image_size).train
    assert train.masks is not None
    assert train.images.shape == (400, 1, image_size, image_size)
    assert torch.equal(train.masks.flatten(1).any(dim=1), train.labels.bool())


def test_images_have_whole_grey_levels(phantom: ImageDataset) -> None:
    levels = (phantom.val.images * 255).round()
    assert torch.equal(levels / 255, phantom.val.images)


def test_few_pixels_are_clipped(phantom: ImageDataset) -> None:
    images = phantom.train.images
    assert ((images == 0) | (images == 1)).float().mean() < 0.01


def test_a_lesion_changes_only_what_lies_near_its_outline() -> None:
    # Nearly all records healthy against nearly all with a lesion: the same streams, so the same tissue.
    without = load_phantom(**SMALL, prevalence=1e-9).train
    with_lesions = load_phantom(**SMALL, prevalence=1 - 1e-9).train
    assert with_lesions.masks is not None
    near = functional.max_pool2d(with_lesions.masks.float(), kernel_size=9, stride=1, padding=4) > 0
    changed = without.images != with_lesions.images
    both = (without.labels == 0) & (with_lesions.labels == 1)
    assert both.sum() >= 38
    assert not (changed & ~near)[both].any()
    assert (changed & with_lesions.masks)[both].flatten(1).any(dim=1).all()


def test_same_seed_gives_the_same_bytes_in_another_process_whatever_the_global_state() -> None:
    train = load_phantom(**SMALL).train
    assert train.masks is not None
    here = hashlib.sha256(train.images.numpy().tobytes() + train.masks.numpy().tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", DIGEST_PROGRAM], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    load_phantom(**SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_gives_other_images() -> None:
    first, second = load_phantom(**SMALL).train, load_phantom(**SMALL, seed=1).train
    assert not (first.images == second.images).flatten(1).all(dim=1).any()


def test_a_splits_records_do_not_depend_on_the_other_splits_sizes() -> None:
    first = load_phantom(num_train=40, num_val=10, num_test=20)
    second = load_phantom(num_train=30, num_val=10, num_test=5)
    assert torch.equal(first.val.images, second.val.images)


def test_prevalence_is_the_share_of_lesions() -> None:
    assert int(load_phantom(**SMALL, prevalence=0.25).train.labels.sum()) == 10


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_train", 0),
        ("num_train", 1),
        ("num_val", -3),
        ("num_test", 2.5),
        ("num_train", "many"),
        ("image_size", 15),
        ("seed", -1),
        ("seed", True),
        ("prevalence", 0.0),
        ("prevalence", 1.0),
        ("prevalence", float("nan")),
        ("prevalence", "half"),
    ],
)
def test_refuses_values_it_cannot_use_and_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(SettingError, match=rf"^data\.{option}: must be .*got {value!r}") as caught:
        load_phantom(**{**SMALL, option: value})
    assert caught.value.key == f"data.{option}"


def test_no_record_passes_for_the_reconstruction_of_another(phantom: ImageDataset) -> None:
    train = phantom.train.images[:400, 0].numpy()
    mean_image = phantom.train.images.mean(dim=0)[0].numpy()
    for image in phantom.val.images[:15, 0].numpy():
        assert max(ssim(image, other) for other in train) < 0.6
        assert ssim(image, mean_image) < 0.4


def test_single_pixels_do_not_give_the_class_away(phantom: ImageDataset) -> None:
    pixels = phantom.train.images.flatten(1).numpy()
    linear = LogisticRegression(C=1e-3, max_iter=200).fit(pixels, phantom.train.labels.numpy())
    scores = linear.decision_function(phantom.test.images.flatten(1).numpy())
    assert roc_auc_score(phantom.test.labels.numpy(), scores) < 0.65


def test_brightness_and_contrast_of_the_whole_image_say_little(phantom: ImageDataset) -> None:
    images, labels = phantom.train.images.flatten(1), phantom.train.labels.numpy()
    for feature in (images.mean(dim=1), images.std(dim=1)):
        auroc = roc_auc_score(labels, feature.numpy())
        assert max(auroc, 1 - auroc) < 0.8


def test_a_small_net_learns_it_in_few_steps_but_not_perfectly(phantom: ImageDataset) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": 2}))
    load_weights(model, initial_weights(model, generator))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(300):
        batch = torch.randint(len(phantom.train), (64,), generator=generator)
        loss = functional.cross_entropy(model(phantom.train.images[batch]), phantom.train.labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        logits = model(phantom.test.images)
    auroc = roc_auc_score(phantom.test.labels.numpy(), (logits[:, 1] - logits[:, 0]).numpy())
    assert 0.88 < auroc < 0.99


def test_a_split_larger_than_a_block_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbdp_fed.data.phantom._BLOCK", 16)
    train = load_phantom(**SMALL).train
    assert len({image.numpy().tobytes() for image in train.images}) == 40
    assert train.masks is not None
    assert torch.equal(train.masks.flatten(1).any(dim=1), train.labels.bool())
    assert train.labels.sum() == 20
