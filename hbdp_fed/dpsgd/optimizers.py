"""The hospitals' optimisers: from a noisy gradient to a step, and from a first step back to its gradient.

The way back is the adversary's. Privacy has to hold for the noisy gradient itself, which nobody keeps secret: whoever
knows the announced optimiser reads it out of an update of one step. An attack that only knew plain SGD would look weak
against every other optimiser, and for no good reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.errors import unknown_choice
from hbdp_fed.types import OptimizerSettings, Weights

Build = Callable[[Sequence[Tensor], OptimizerSettings], torch.optim.Optimizer]
FirstGradient = Callable[[Weights, Weights, OptimizerSettings], Weights]

_EPS = 1e-8
"""Added to the root of the second moment: the Adam family's default."""

BETA2 = 0.999
"""Decay of the second moment: the Adam family's default."""

_MOMENTUM_DECAY = 4e-3
"""How fast NAdam's momentum approaches its final value: PyTorch's default."""

_HUGE_GRADIENT = 1e150
"""So large that eps vanishes beside it, so small that its square is finite."""


@dataclass(frozen=True)
class OptimizerEntry:
    """One optimiser.

    Attributes:
        build: Makes it for some float64 tensors, which it then moves in place.
        first_gradient: See :func:`first_gradient`.
    """

    build: Build
    first_gradient: FirstGradient


def build_optimizer(parameters: Sequence[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser that ``settings`` names, over ``parameters`` (float64).

    Raises:
        SettingError: if there is no such optimiser.
    """
    return _entry(settings).build(parameters, settings)


def first_gradient(delta: Weights, weights: Weights, settings: OptimizerSettings) -> Weights:
    """The gradient behind the first step of an optimiser, exact up to the rounding of float64.

    Plain SGD's step is linear in the gradient. A first step of the Adam family has nearly the same length for every
    large gradient, c * g / (|g| + eps), but eps is there: with r = |step| / c, |g| = eps * r / (1 - r). Float64 tells
    1 - r to about 1e-16, so a coordinate comes back with a relative error of a few 1e-8 * |g| * (1 + |weight| /
    learning rate): enough for any usual learning rate, and nothing where the weight is a billion times as large.

    Args:
        delta: What the step changed, weights after minus weights before, float64; some or all of the parameters.
        weights: The weights before, at least those of ``delta``.
        settings: The optimiser, with the learning rate of that step.

    Returns:
        By the names of ``delta``, float64. At most about 1e8 in a coordinate for the Adam family, whose longest step
        belongs to all gradients beyond.

    Raises:
        SettingError: if there is no such optimiser.
    """
    return _entry(settings).first_gradient(delta, weights, settings)


def step_weights(rates: Sequence[float], *, momentum: float) -> list[float]:
    """By how much each step's gradient moves the weights in all, for SGD with momentum started anew.

    The velocity is v_s = sum over t <= s of momentum^(s-t) g_t and step s moves the weights by -rate_s v_s, so that
    gradient t has moved them by -c_t g_t in the end, with c_t = sum over s >= t of rate_s momentum^(s-t).

    Args:
        rates: The learning rate of each step, positive.
        momentum: In [0, 1).
    """
    weights: list[float] = []
    tail = 0.0
    for rate in reversed(rates):
        tail = rate + momentum * tail
        weights.append(tail)
    return weights[::-1]


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Any:
    """The same optimiser without the marks that tell PyTorch's compiler to leave its methods alone.

    The first call of such a mark imports the compiler, which nobody uses here: nearly a second of every process. What
    is below the marks is untouched.
    """
    bare = inspect.unwrap(kind.step)

    @torch.no_grad()
    def step(self: torch.optim.Optimizer) -> None:
        bare(self)

    methods = {name: inspect.unwrap(getattr(torch.optim.Optimizer, name)) for name in ("add_param_group", "zero_grad")}
    return type(kind.__name__, (kind,), {**methods, "step": step})


_SGD, _AdamW, _NAdam = map(_uncompiled, (torch.optim.SGD, torch.optim.AdamW, torch.optim.NAdam))


def _entry(settings: OptimizerSettings) -> OptimizerEntry:
    if settings.name not in OPTIMIZERS:
        raise unknown_choice("training.optimizer", settings.name, OPTIMIZERS)
    return OPTIMIZERS[settings.name]


def _sgd(parameters: Sequence[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return _SGD(  # type: ignore[no-any-return]
        parameters, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _sgd_first_gradient(delta: Weights, weights: Weights, settings: OptimizerSettings) -> Weights:
    # The velocity starts as the first gradient, so momentum plays no part yet.
    return {
        name: -change.double() / settings.learning_rate
        - settings.weight_decay * weights[name].double().to(change.device)
        for name, change in delta.items()
    }


def _adamw(parameters: Sequence[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return _AdamW(  # type: ignore[no-any-return]
        parameters,
        lr=settings.learning_rate,
        betas=(settings.momentum, BETA2),
        eps=_EPS,
        weight_decay=settings.weight_decay,
    )


def _nadam(parameters: Sequence[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return _NAdam(  # type: ignore[no-any-return]
        parameters,
        lr=settings.learning_rate,
        betas=(settings.momentum, BETA2),
        eps=_EPS,
        weight_decay=settings.weight_decay,
        momentum_decay=_MOMENTUM_DECAY,
        decoupled_weight_decay=True,
    )


def _adam_like(build: Build) -> OptimizerEntry:
    """An optimiser whose first step is c * g / (|g| + eps) after a decoupled weight decay."""

    def first_gradient(delta: Weights, weights: Weights, settings: OptimizerSettings) -> Weights:
        longest = _longest_first_step(build, settings)
        kept = 1 - settings.learning_rate * settings.weight_decay
        gradient = {}
        for name, change in delta.items():
            before = weights[name].double().to(change.device)
            # In the order in which the optimiser did it, so that nothing is lost to another rounding.
            step = (before + change.double()) - before * kept
            # A share that rounding lifted to 1 would be an infinite gradient.
            share = (step.abs() / longest).clamp(max=1 - torch.finfo(torch.float64).eps / 2)
            gradient[name] = -step.sign() * _EPS * share / (1 - share)
        return gradient

    return OptimizerEntry(build=build, first_gradient=first_gradient)


def _longest_first_step(build: Build, settings: OptimizerSettings) -> float:
    """c, the length of a first step that a huge gradient makes.

    AdamW's is the learning rate. NAdam (Dozat 2016) adds a look-ahead: c = learning rate * (1 + (1 - beta1) mu_2 /
    (1 - mu_1 mu_2)) with mu_t = beta1 (1 - 0.96^(t * momentum decay) / 2). But PyTorch keeps the product of the mu in
    float32, and c is wanted to the last bit of float64. So the optimiser itself is asked.
    """
    weight = torch.zeros(1, dtype=torch.float64)
    weight.grad = torch.full_like(weight, _HUGE_GRADIENT)
    build([weight], settings).step()
    return abs(float(weight))


OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(build=_sgd, first_gradient=_sgd_first_gradient),
    "nadam": _adam_like(_nadam),
    "adamw": _adam_like(_adamw),
}
"""The optimisers by name."""
