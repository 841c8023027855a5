"""Whether a model's gradient can be had record by record: the engine's clipped sum against records computed alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import GradientSum, clip_factors, trainable
from hbdp_fed.dpsgd.grad_modes import clipped_summer
from hbdp_fed.dpsgd.losses import RecordLoss
from hbdp_fed.types import Weights

TOLERANCE = 1e-6
"""Relative error from which gradients count as different. In float64, another order of addition makes about 1e-13."""

_NEVER_CLIPS = 1e3
"""Times the largest norm: a bound that no record reaches, whatever is wrong with it."""


class UnequalGradients(ValueError):
    """A record's gradient in a batch is not the one that it has alone, so clipping it bounds nothing."""


def check_record_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, *, loss: RecordLoss, grad_mode: str = "hbdp"
) -> float:
    """Compare the clipped sum of a few records with the same sum made of gradients that plain autograd has of each.

    Computed in float64 and training mode on a copy. The clipping norm is the mean of the records' norms, so that some
    are clipped and some are not.

    Args:
        model: On the CPU, with the weights to check it at.
        images: (b, C, *spatial), a few records that nobody has to protect, such as random ones; b at least 2.
        labels: Theirs.
        loss: The loss of each row.
        grad_mode: A key of :data:`hbdp_fed.dpsgd.GRAD_MODES`.

    Returns:
        The largest relative error found, of a record's norm or of the clipped sum; at most :data:`TOLERANCE`.

    Raises:
        UnequalGradients: if it is larger, naming the layer that mixes records where one does, otherwise the one whose
            gradient is wrong.
        ValueError: if the model draws random numbers, changes its buffers, has no gradient, or cannot be clipped.
    """
    if len(images) < 2:
        raise ValueError(f"at least 2 records are needed to see whether they mix, got {len(images)}")
    model, images = copy.deepcopy(model).double().train(), images.double()
    with _left_alone(model):
        alone = [_gradient(model, images[i : i + 1], labels[i : i + 1], loss) for i in range(len(images))]
    norms = torch.stack([torch.stack([g.norm() for g in one.values()]).norm() for one in alone])
    clip = float(norms.mean())
    if not clip > 0 or not bool(torch.isfinite(norms).all()):
        raise ValueError("random images have no finite gradient that is not zero in this model")
    found = _clipped(model, images, labels, loss, grad_mode, max_grad_norm=clip)
    sums = _errors(found, alone, clip_factors(norms, clip))
    # By torch, whose maximum is NaN where one is: NaN is no small error.
    error = float(torch.tensor([*sums.values(), *((found.norms - norms).abs() / norms.max()).tolist()]).max())
    if not error <= TOLERANCE:
        whole = _clipped(model, images, labels, loss, grad_mode, max_grad_norm=_NEVER_CLIPS * float(norms.max()))
        raise UnequalGradients(_blamed(model, images, _errors(whole, alone, torch.ones_like(norms)), error))
    return error


def _clipped(
    model: nn.Module, images: Tensor, labels: Tensor, loss: RecordLoss, grad_mode: str, *, max_grad_norm: float
) -> GradientSum:
    """What a training step would sum. On a copy: not every way leaves the model as it was."""
    summer = clipped_summer(
        copy.deepcopy(model),
        max_grad_norm=max_grad_norm,
        max_physical_batch=len(images),
        grad_mode=grad_mode,
        loss=loss,
    )
    return summer(images, labels)


def _errors(found: GradientSum, alone: Sequence[Weights], factors: Tensor) -> dict[str, float]:
    """By parameter, how far a sum is from that of the records' own gradients, relative to the whole sum."""
    own = {name: sum(f * one[name] for f, one in zip(factors, alone, strict=True)) for name in alone[0]}
    whole = float(torch.stack([value.norm() for value in own.values()]).norm())
    return {name: float((found.total[name] - value).norm()) / whole for name, value in own.items()}


def _gradient(model: nn.Module, image: Tensor, label: Tensor, loss: RecordLoss) -> dict[str, Tensor]:
    """One record's gradient by plain autograd, zeros where the loss does not reach a parameter."""
    parameters = trainable(model)
    value = loss(model(image), label).sum()
    found: tuple[Tensor | None, ...] = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """See to it that what happens inside draws nothing from the global random state and remembers nothing."""
    state, buffers = torch.get_rng_state(), {name: value.clone() for name, value in model.named_buffers()}
    yield
    if not torch.equal(state, torch.get_rng_state()):
        raise ValueError("it draws from PyTorch's global random state in training, which no seed of a run reaches")
    for name, value in model.named_buffers():
        if name not in buffers or not torch.equal(value, buffers[name]):
            raise ValueError(f"its buffer '{name}' changes in training: it would remember private records")


def _blamed(model: nn.Module, images: Tensor, errors: Mapping[str, float], error: float) -> str:
    """What is wrong, with the layer where it can be told."""
    mixing = _mixing_module(model, images)
    if mixing is not None:
        where = f"'{mixing}' ({type(model.get_submodule(mixing)).__name__})" if mixing else "its own forward method"
        return f"the answer about a record depends on the batch it is in: {where} mixes records"
    problem = f"a record's gradient in a batch differs from the one it has alone (relative error {error:.2g})"
    # Back-propagation goes from the last layer to the first: what comes behind the fault is still right.
    wrong = [name for name, value in errors.items() if not value <= TOLERANCE]
    if not wrong:
        return problem
    layer = wrong[-1].rpartition(".")[0]
    return f"{problem}, from '{layer}' ({type(model.get_submodule(layer)).__name__}) on backwards"


@torch.no_grad()
def _mixing_module(model: nn.Module, images: Tensor) -> str | None:
    """The innermost module that gets the same of the first record alone and in the batch, and gives something else."""
    together, alone = _traced(model, images), _traced(model, images[:1])
    for key, (inputs, outputs) in alone.items():
        if key not in together:
            continue
        their_inputs, their_outputs = together[key]
        if _same_rows(inputs, their_inputs) and not _same_rows(outputs, their_outputs):
            return key[0]
    return None


_Tensors = list[Tensor]


def _traced(model: nn.Module, images: Tensor) -> dict[tuple[str, int], tuple[_Tensors, _Tensors]]:
    """Every module's inputs and outputs by its name and the number of its call, innermost and earliest first."""
    found: dict[tuple[str, int], tuple[_Tensors, _Tensors]] = {}
    calls: dict[str, list[_Tensors]] = {}

    def tensors(value: object) -> _Tensors:
        parts = value if isinstance(value, tuple | list) else (value,)
        # Cloned: a later sum in place would change what is kept.
        return [part.clone() for part in parts if isinstance(part, Tensor)]

    def watch(name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        def before(_: nn.Module, inputs: object) -> None:
            calls.setdefault(name, []).append(tensors(inputs))

        def after(_: nn.Module, inputs: object, outputs: object) -> None:
            place = len(calls[name]) - 1
            found[name, place] = calls[name][place], tensors(outputs)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles = [handle for name, module in model.named_modules() for handle in watch(name, module)]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _same_rows(alone: _Tensors, together: _Tensors) -> bool:
    """Whether the first record's rows are the same in a batch as alone."""
    return all(
        ours.shape[1:] == theirs.shape[1:]
        and torch.allclose(ours, theirs[: len(ours)], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for ours, theirs in zip(alone, together, strict=False)
    )
