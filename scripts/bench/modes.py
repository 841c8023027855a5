"""The ways to take one training step, from weights to updated weights: plain SGD, this project's, and its peers'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from cases import Batch
from opacus.grad_sample import prepare_module
from opacus.optimizers import get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, record_losses, seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.training.precision import precision_called
from hbdp_fed.types import DpSgdParams, OptimizerSettings

NOISE_SEED = 2


@dataclass(frozen=True)
class Recipe:
    """What all modes do alike."""

    noise_multiplier: float = 1e-5
    max_grad_norm: float = 1.0
    learning_rate: float = 0.01
    momentum: float = 0.9

    def sgd(self, model: nn.Module) -> torch.optim.SGD:
        """The optimiser over the model's own weights."""
        return torch.optim.SGD(model.parameters(), lr=self.learning_rate, momentum=self.momentum)


Step = Callable[[], None]
"""Takes one training step. Per-record gradients are dropped at its end, so that the price of freeing them is in it and
they are in nobody's way afterwards."""

Build = Callable[[nn.Module, Batch, Recipe], Step]
"""Prepares a model to be trained on a batch. The model is the mode's own, to be changed as it likes."""


@dataclass(frozen=True)
class Mode:
    """One way to take a training step.

    Attributes:
        name: What the results call it.
        precision: What the layers compute in. The model's weights are float32 in any case.
        build: Prepares a model for it.
    """

    name: str
    precision: str
    build: Build


def _sgd(model: nn.Module, batch: Batch, recipe: Recipe, *, precision: str) -> Step:
    """Ordinary training without privacy, as everybody writes it."""
    compute = precision_called(precision).compute
    optimizer = recipe.sgd(model)
    kind = batch.images.device.type

    def step() -> None:
        with torch.autocast(kind, dtype=compute, enabled=compute is not None):
            loss = functional.cross_entropy(model(batch.images), batch.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _hbdp(model: nn.Module, batch: Batch, recipe: Recipe, *, precision: str, parts: int = 1) -> Step:
    """A step of :mod:`hbdp_fed.training`: float64 masters take it, the model's float32 weights follow them.

    With several ``parts``, so many micro-batches one after the other: the same result in less memory.
    """
    compute = precision_called(precision).compute
    mechanism = DpSgdParams(recipe.noise_multiplier, recipe.max_grad_norm, sample_rate=1.0, steps=1)
    size = len(batch.labels)
    followers = dict(model.named_parameters())
    masters = {name: value.detach().double().clone() for name, value in followers.items()}
    settings = OptimizerSettings("sgd", learning_rate=recipe.learning_rate, momentum=recipe.momentum)
    optimizer = build_optimizer(list(masters.values()), settings)
    summer = make_summer(model, mechanism, max_physical_batch=-(-size // parts), compute_dtype=compute)
    noise = seeded_noise(_generator(batch.images.device))

    def step() -> None:
        found = dp_sgd_gradient(
            summer, batch.images, batch.labels, mechanism=mechanism, expected_batch=size, noise=noise
        )
        for name, master in masters.items():
            master.grad = found.gradient[name]
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, follower in followers.items():
                follower.copy_(masters[name])

    return step


class _RecordCriterion:
    """Cross-entropy in the form that Opacus' ghost clipping asks for: it sets ``reduction`` to see single records."""

    def __init__(self) -> None:
        self.reduction = "mean"

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        losses = record_losses(outputs, labels)
        return losses if self.reduction == "none" else losses.mean()


def _opacus(model: nn.Module, batch: Batch, recipe: Recipe, *, kind: str) -> Step:
    """A step of Opacus with its own wrapper, optimiser and noise, as its PrivacyEngine puts them together."""
    inner = recipe.sgd(model)
    ghost = kind == "ghost"
    extra = {"max_grad_norm": recipe.max_grad_norm} if ghost else {}
    wrapped = prepare_module(model, kind, batch_first=True, loss_reduction="mean", **extra)
    optimizer = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode=kind)(
        inner,
        noise_multiplier=recipe.noise_multiplier,
        max_grad_norm=recipe.max_grad_norm,
        expected_batch_size=len(batch.labels),
        loss_reduction="mean",
        generator=_generator(batch.images.device),
    )
    plain = _RecordCriterion()
    criterion = DPLossFastGradientClipping(wrapped, optimizer, plain, loss_reduction="mean") if ghost else plain

    def step() -> None:
        criterion(wrapped(batch.images), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _torch_func(model: nn.Module, batch: Batch, recipe: Recipe) -> Step:
    """Per-record gradients by ``vmap(grad)``, clipped, summed and noised in the textbook's order."""
    named = dict(model.named_parameters())
    optimizer = recipe.sgd(model)
    generator = _generator(batch.images.device)
    size = len(batch.labels)

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, values, (image[None],))
        return record_losses(outputs, label[None]).sum()

    by_record = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), randomness="different")

    def step() -> None:
        gradients = by_record({name: p.detach() for name, p in named.items()}, batch.images, batch.labels)
        norms = torch.stack([g.flatten(start_dim=1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = recipe.max_grad_norm / norms.clamp(min=recipe.max_grad_norm)
        for name, parameter in named.items():
            total = torch.einsum("n,n...->...", factors, gradients[name])
            noise = torch.randn(parameter.shape, generator=generator, device=generator.device)
            total += noise * (recipe.noise_multiplier * recipe.max_grad_norm)
            parameter.grad = total / size
        optimizer.step()
        optimizer.zero_grad()

    return step


def _generator(device: torch.device) -> torch.Generator:
    """A source of noise on ``device``."""
    return torch.Generator(device).manual_seed(NOISE_SEED)


FLOAT32, BF16 = "float32", "bf16"
"""Keys of :data:`hbdp_fed.training.precision.PRECISIONS`."""

BASELINE = Mode("sgd", FLOAT32, partial(_sgd, precision=FLOAT32))
"""What everything else is compared with, whatever precision that is in."""

MODES = (
    BASELINE,
    Mode("hbdp", FLOAT32, partial(_hbdp, precision=FLOAT32)),
    Mode("hbdp_halved", FLOAT32, partial(_hbdp, precision=FLOAT32, parts=2)),
    Mode("opacus_hooks", FLOAT32, partial(_opacus, kind="hooks")),
    Mode("opacus_ew", FLOAT32, partial(_opacus, kind="ew")),
    Mode("opacus_ghost", FLOAT32, partial(_opacus, kind="ghost")),
    Mode("opacus_functorch", FLOAT32, partial(_opacus, kind="functorch")),
    Mode("torch_func", FLOAT32, _torch_func),
    Mode("sgd", BF16, partial(_sgd, precision=BF16)),
    Mode("hbdp", BF16, partial(_hbdp, precision=BF16)),
)
"""All modes, in the order in which they take turns."""
