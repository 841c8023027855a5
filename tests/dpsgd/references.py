"""Models and the comparison that the tests of per-record clipping share."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd import GradientSum, RecordLoss, clipped_summer
from hbdp_fed.seeding import generator

REFERENCES = ("torch_func", "opacus")
CLIP = 0.3


def squares(outputs: Tensor, _: Tensor) -> Tensor:
    """A loss of any output, (n,); its gradient differs at every position."""
    return (outputs.flatten(start_dim=1) ** 2).sum(dim=1) + outputs.flatten(start_dim=1).sin().sum(dim=1)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with every parameter drawn anew: affine weights of 1 and biases of 0 hide mistakes."""
    g = generator(seed, "parameters")
    model = model.double()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=g, dtype=torch.float64) * 0.5 + 0.1)
    return model


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "rows"), dtype=torch.float64)


def clipped(
    model: nn.Module,
    images: Tensor,
    *,
    grad_mode: str = "hbdp",
    labels: Tensor | None = None,
    multiplicity: int = 1,
    max_physical_batch: int = 64,
    max_grad_norm: float = CLIP,
    loss: RecordLoss = squares,
    compute_dtype: torch.dtype | None = None,
) -> GradientSum:
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    summer = clipped_summer(
        copy.deepcopy(model),
        max_grad_norm=max_grad_norm,
        max_physical_batch=max_physical_batch,
        multiplicity=multiplicity,
        grad_mode=grad_mode,
        compute_dtype=compute_dtype,
        loss=loss,
    )
    return summer(images, labels)


def flat(found: GradientSum) -> Tensor:
    return torch.cat([value.flatten() for value in found.total.values()])


def assert_same(found: GradientSum, expected: GradientSum, *, relative: float = 1e-10) -> None:
    """Norms record by record, and every parameter's sum relative to the whole one, which is what clipping sees."""
    assert found.norms.tolist() == pytest.approx(expected.norms.tolist(), rel=relative)
    assert found.total.keys() == expected.total.keys()
    whole = float(flat(expected).norm())
    assert whole > 0
    for name, value in expected.total.items():
        assert float((found.total[name] - value).norm()) <= relative * whole, name
    assert found.num_records == expected.num_records
    assert found.loss == pytest.approx(expected.loss, rel=relative)


def assert_exact(
    model: Callable[[], nn.Module] | nn.Module, images: Tensor, *, references: tuple[str, ...] = REFERENCES
) -> None:
    """Micro-batched and not, one view a record and four: the same as every reference."""
    built = randomised(model if isinstance(model, nn.Module) else model())
    for multiplicity in (1, 4):
        for reference in references:
            expected = clipped(built, images, grad_mode=reference, multiplicity=multiplicity)
            for physical in (64, 3):
                found = clipped(built, images, multiplicity=multiplicity, max_physical_batch=physical)
                assert_same(found, expected)
