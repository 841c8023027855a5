"""Each loss is what its formula says, row by row, and its clipped gradients are the same whatever computes them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hbdp_fed.dpsgd import LOSSES, RecordLoss, record_loss, record_losses
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped, randomised, rows

K = 3
WEIGHTS = (0.5, 2.0, 1.25)


@dataclass(frozen=True)
class Task:
    """A loss with a model and the labels that it is for."""

    loss: str
    model: str
    options: dict[str, Any]
    spatial: tuple[int, ...]
    labels: tuple[int, ...]

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Logits of no model in particular, and labels."""
        high = 2 if self.loss == "binary_cross_entropy" else K
        labels = torch.randint(high, (n, *self.labels), generator=torch.Generator().manual_seed(1))
        dense = self.labels if self.loss == "dice_cross_entropy" or len(self.labels) > 1 else ()
        return rows(n, K, *dense), labels


TASKS = {
    "classes": Task("cross_entropy", "cnn", {"width": 4}, (16, 16), ()),
    "classes_of_volumes": Task("cross_entropy", "cnn", {"width": 4, "spatial_dims": 3}, (8, 8, 8), ()),
    "pixels": Task("cross_entropy", "unet", {"width": 8}, (16, 16), (16, 16)),
    "findings": Task("binary_cross_entropy", "cnn", {"width": 4}, (16, 16), (K,)),
    "dice": Task("dice_cross_entropy", "unet", {"width": 8}, (16, 16), (16, 16)),
    "dice_of_volumes": Task("dice_cross_entropy", "unet", {"width": 8, "spatial_dims": 3}, (16,) * 3, (16,) * 3),
}
ALL = pytest.mark.parametrize("name", TASKS)
WEIGHTED = pytest.mark.parametrize("weights", [None, WEIGHTS])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def by_hand(loss: str, logits: Tensor, labels: Tensor, weights: Sequence[float]) -> list[float]:
    """Row by row and label by label, in NumPy."""
    found = []
    for z, y in zip(logits.numpy().reshape(len(logits), K, -1), labels.numpy().reshape(len(labels), -1), strict=True):
        if loss == "binary_cross_entropy":
            p = 1 / (1 + np.exp(-z[:, 0]))
            found.append(
                np.mean([-w * np.log(a) if b else -np.log(1 - a) for a, b, w in zip(p, y, weights, strict=True)])
            )
            continue
        p = softmax(z)
        value = np.mean([-weights[label] * np.log(p[label, i]) for i, label in enumerate(y)])
        if loss == "dice_cross_entropy":
            ratios = [(2 * p[k][y == k].sum() + 1) / (p[k].sum() + (y == k).sum() + 1) for k in range(1, K)]
            value += 1 - np.mean(ratios)
        found.append(value)
    return found


@ALL
@WEIGHTED
def test_each_loss_is_its_formula(name: str, weights: tuple[float, ...] | None) -> None:
    task = TASKS[name]
    logits, labels = task.draw(4)
    found = record_loss(task.loss, weights)(logits, labels)
    assert found.shape == (4,)
    assert found.tolist() == pytest.approx(by_hand(task.loss, logits, labels, weights or (1.0,) * K), rel=1e-12)


@pytest.mark.parametrize("name", ["dice", "dice_of_volumes"])
def test_the_dice_part_is_monais(name: str) -> None:
    from monai.losses import DiceLoss

    logits, labels = TASKS[name].draw(4)
    monai = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0
    )
    expected = monai(logits, labels[:, None]).flatten(start_dim=1).mean(dim=1)
    found = record_loss("dice_cross_entropy")(logits, labels) - record_losses(logits, labels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@ALL
@WEIGHTED
@pytest.mark.parametrize("reference", ["torch_func", "opacus"])
def test_clipped_sums_agree_in_every_way_of_computing_them(
    name: str, weights: tuple[float, ...] | None, reference: str
) -> None:
    task = TASKS[name]
    model = randomised(build_model(ModelSpec(task.model, {"in_channels": 1, "num_classes": K, **task.options})))
    _, labels = task.draw(3)
    options = {"labels": labels, "loss": record_loss(task.loss, weights), "max_grad_norm": 0.1}
    images = rows(3, 1, *task.spatial).sigmoid()
    found = clipped(model, images, max_physical_batch=2, **options)
    assert_same(found, clipped(model, images, grad_mode=reference, **options))
    assert bool((found.norms > 0.1).any())


@ALL
@WEIGHTED
def test_no_row_has_a_part_in_anothers_loss(name: str, weights: tuple[float, ...] | None) -> None:
    task = TASKS[name]
    loss = record_loss(task.loss, weights)
    logits, labels = task.draw(3)
    logits.requires_grad_()
    together = loss(logits, labels)
    torch.testing.assert_close(together, torch.cat([loss(logits[[i]], labels[[i]]) for i in range(3)]))
    for row in range(3):
        (gradient,) = torch.autograd.grad(together[row], logits, retain_graph=True)
        others = [i for i in range(3) if i != row]
        assert bool(gradient[row].any())
        assert not bool(gradient[others].any())


@ALL
def test_weights_of_one_change_no_bit(name: str) -> None:
    task = TASKS[name]
    logits, labels = task.draw(4)
    assert torch.equal(record_loss(task.loss, [1, 1, 1])(logits, labels), record_loss(task.loss)(logits, labels))


def test_a_labels_weight_multiplies_its_rows_loss_and_no_other() -> None:
    logits, labels = rows(4, K), torch.tensor([0, 1, 2, 1])
    ratio = record_loss("cross_entropy", WEIGHTS)(logits, labels) / record_losses(logits, labels)
    assert ratio.tolist() == pytest.approx([0.5, 2.0, 1.25, 2.0])


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("label", [0, 1])
def test_a_class_that_a_row_lacks_leaves_loss_and_gradient_finite(label: int, scale: float) -> None:
    logits = (scale * rows(2, K, 6, 6).float()).requires_grad_()
    losses = record_loss("dice_cross_entropy")(logits, torch.full((2, 6, 6), label))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert bool(losses.isfinite().all())
    assert bool(gradient.isfinite().all())


def test_a_perfect_segmentation_loses_nothing() -> None:
    labels = torch.randint(2, (2, 6, 6), generator=torch.Generator().manual_seed(0))  # class 2 is absent
    logits = 100 * torch.nn.functional.one_hot(labels, K).movedim(-1, 1).double()
    assert record_loss("dice_cross_entropy")(logits, labels).tolist() == pytest.approx([0, 0], abs=1e-12)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_follow_the_logits(name: str, dtype: torch.dtype, device: str) -> None:
    task = TASKS[name]
    logits, labels = task.draw(2)
    found = record_loss(task.loss, WEIGHTS)(logits.to(device, dtype), labels.to(device))
    assert (found.dtype, found.device.type) == (dtype, device)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_travels_to_another_process(loss: str) -> None:
    task = next(task for task in TASKS.values() if task.loss == loss)
    made: RecordLoss = record_loss(loss, WEIGHTS)
    assert torch.equal(pickle.loads(pickle.dumps(made))(*task.draw(2)), made(*task.draw(2)))


def test_an_unknown_loss_names_the_setting_and_the_choices() -> None:
    with pytest.raises(SettingError, match=r"training\.loss: 'dice' is not known; .*dice_cross_entropy"):
        record_loss("dice")


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [1.0, -2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_weights_that_are_not_positive_numbers_are_refused(weights: list[float]) -> None:
    with pytest.raises(SettingError, match=r"training\.class_weights: must be positive finite numbers"):
        record_loss("cross_entropy", weights)


@ALL
def test_another_number_of_weights_than_outputs_is_refused(name: str) -> None:
    task = TASKS[name]
    with pytest.raises(ValueError, match=r"training\.class_weights has 2 weights, but the model has 3 outputs"):
        record_loss(task.loss, [1.0, 2.0])(*task.draw(2))


@pytest.mark.parametrize(
    ("loss", "logits", "labels", "message"),
    [
        ("binary_cross_entropy", (4, K), (4,), r"one shape \(n, K\), got \(4, 3\) and \(4,\)"),
        ("binary_cross_entropy", (4, K, 5), (4, K, 5), r"one shape \(n, K\)"),
        ("dice_cross_entropy", (4, K), (4,), r"takes logits \(n, K, \*spatial\) .* got shape \(4, 3\)"),
        ("dice_cross_entropy", (4, 1, 5, 5), (4, 5, 5), "at least one other class"),
    ],
)
def test_logits_of_another_task_are_refused(
    loss: str, logits: tuple[int, ...], labels: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        record_loss(loss)(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))
