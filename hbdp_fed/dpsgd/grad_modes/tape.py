"""Watching a model's layers during one forward and backward pass.

While a :class:`Tape` runs, each layer computes through an autograd function of ours. Its backward pass hands the
layer's input on to the layer's rule (see :mod:`hbdp_fed.dpsgd.layers`) and gives autograd the gradient of the input
only: the batch's own weight gradient, a third of the work of back-propagation, is never computed before the clipping
factors are known.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import parametrize

from hbdp_fed.dpsgd.clipping import trainable
from hbdp_fed.dpsgd.grad_modes.fallback import Unruled
from hbdp_fed.dpsgd.layers import Call, Contribution, LayerRule, PerRecord, rule_of
from hbdp_fed.dpsgd.losses import RecordLoss

logger = logging.getLogger(__name__)


class PastLayers(ValueError):
    """A model uses a parameter without calling the layer that holds it."""


@dataclass(frozen=True)
class Layer:
    """A layer to watch.

    Attributes:
        module: The layer itself.
        rule: Its rule; None lets torch.func differentiate the module as a whole.
        names: Its trainable parameters: the name inside the module, and the name in the model.
    """

    module: nn.Module
    rule: LayerRule | None
    names: Mapping[str, str]


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers that hold the model's trainable parameters, each once.

    Raises:
        ValueError: if a layer mixes records, or its forward was replaced on the instance.
    """
    _refuse_mixing(model)
    names = {id(value): name for name, value in trainable(model).items()}
    layers: list[Layer] = []
    seen: set[int] = set()

    def visit(module: nn.Module) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        own = {name: names[id(p)] for name, p in module.named_parameters(recurse=False) if id(p) in names}
        parametrized = parametrize.is_parametrized(module)
        # A forward of the instance's own may compute anything, as a subclass may.
        rule = None if parametrized or "forward" in vars(module) else rule_of(module)
        if rule is None and (own or parametrized):
            if "forward" in vars(module):
                raise ValueError(f"{type(module).__name__}.forward was replaced on the instance: write a class instead")
            everything = {name: names[id(p)] for name, p in module.named_parameters() if id(p) in names}
            if everything:
                _announce(type(module).__name__)
                layers.append(Layer(module, None, everything))
            return
        if own:
            layers.append(Layer(module, rule, own))
        for child in module.children():
            visit(child)

    visit(model)
    return layers


def _refuse_mixing(model: nn.Module) -> None:
    problem = "this model cannot be trained with per-record clipping"
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(f"{problem}: '{name}' ({type(module).__name__}) mixes records; use GroupNorm")
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"{problem}: '{name}' ({type(module).__name__}) keeps statistics of private records; "
                "set track_running_stats=False"
            )


@cache
def _announce(kind: str) -> None:
    """Say once in a process that a module takes the slow way."""
    logger.warning("%s has no rule for per-record gradients: torch.func differentiates it, which is slower", kind)


class Tape:
    """What one pass over a micro-batch leaves.

    Args:
        records: b.
        compute_dtype: Precision of the layers; None for the parameters' own.
        keep: Whether every record's gradients are wanted, whatever their norms could be had for.
    """

    def __init__(self, records: int, compute_dtype: torch.dtype | None, *, keep: bool = False) -> None:
        self.records = records
        self.compute_dtype = compute_dtype
        self.keep = keep
        self.uses: Counter[str] = Counter()
        self.contributions: dict[str, Contribution] = {}

    def used(self, layer: Layer) -> None:
        """Count one use of a layer in the forward pass."""
        self.uses.update(layer.names.values())

    def call(self, layer: Layer, *, need_input: bool, outputs: Tensor | None) -> Call:
        """What the backward pass of one use has to deliver."""
        return Call(
            records=self.records,
            trainable=layer.names.keys(),
            need_input=need_input,
            keep=self.keep or any(self.uses[name] > 1 for name in layer.names.values()),
            outputs=outputs,
        )

    def add(self, layer: Layer, contributions: Mapping[str, Contribution]) -> None:
        """Take in what one use of a layer contributed."""
        for inside, contribution in contributions.items():
            name = layer.names[inside]
            earlier = self.contributions.get(name)
            if earlier is not None:
                assert isinstance(earlier, PerRecord)
                assert isinstance(contribution, PerRecord)
                contribution = earlier + contribution
            self.contributions[name] = contribution


@contextmanager
def watched(layers: Sequence[Layer], tape: Tape, anchor: Tensor) -> Iterator[None]:
    """Let the layers compute through the tape; afterwards the model is as it was.

    Args:
        layers: From :func:`layers_of`.
        tape: Filled by the forward pass inside and by the backward pass of what it returns.
        anchor: A scalar that requires a gradient. Weights are constants to autograd here, and images have no gradient:
            without it there would be nothing to differentiate.
    """
    for layer in layers:
        forward = _through_torch_func if layer.rule is None else _through_rule
        # In the instance's own dictionary, in front of the class's method, past nn.Module's bookkeeping.
        layer.module.__dict__["forward"] = partial(forward, layer, tape, anchor)
    try:
        yield
    finally:
        for layer in layers:
            del layer.module.__dict__["forward"]


def run_through(
    tape: Tape, model: nn.Module, layers: Sequence[Layer], images: Tensor, labels: Tensor, loss: RecordLoss
) -> Tensor:
    """One pass of a micro-batch, forward and backward, which fills the tape.

    Args:
        tape: A fresh one.
        model: The model.
        layers: From :func:`layers_of`.
        images: (b * K, C, *spatial), K views of each of b records, one record's after the other.
        labels: Of the views.
        loss: The loss of each row; a record's is the mean over its views.

    Returns:
        The sum of the records' losses, a scalar.

    Raises:
        PastLayers: if a parameter is used behind its layer's back, so that its per-record gradients are unknown.
    """
    parameters = trainable(model)
    anchor = torch.zeros((), device=images.device, requires_grad=True)
    if tape.compute_dtype is not None:
        images = images.to(tape.compute_dtype)
    with watched(layers, tape, anchor):
        outputs = model(images)
    value = loss(outputs if tape.compute_dtype is None else outputs.float(), labels).sum()
    value = value / (len(labels) // tape.records)
    # The parameters are asked for only to find out whether the loss reaches one of them past its layer.
    found: tuple[Tensor | None, ...] = torch.autograd.grad(value, [anchor, *parameters.values()], allow_unused=True)
    around = [name for name, gradient in zip(parameters, found[1:], strict=True) if gradient is not None]
    if around:
        raise PastLayers(
            f"the model uses {', '.join(around)} without calling the layer that holds it: "
            "per-record gradients of it are unknown; use training.grad_mode=torch_func"
        )
    return value.detach()


def _through_rule(layer: Layer, tape: Tape, anchor: Tensor, inputs: Tensor, *arguments: Any) -> Tensor:
    assert layer.rule is not None
    _check_rows(layer, tape, inputs)
    tape.used(layer)
    outputs: Tensor = _Ruled.apply(  # type: ignore[no-untyped-call]
        anchor, layer.rule.prepare(layer.module, inputs), layer, tape, arguments
    )
    return outputs


def _through_torch_func(layer: Layer, tape: Tape, anchor: Tensor, *inputs: Any, **options: Any) -> Tensor:
    for value in inputs:
        if isinstance(value, Tensor):
            _check_rows(layer, tape, value)
    tape.used(layer)
    outputs: Tensor = _Unruled.apply(  # type: ignore[no-untyped-call]
        anchor, layer, tape, options, *inputs
    )
    return outputs


def _check_rows(layer: Layer, tape: Tape, inputs: Tensor) -> None:
    if inputs.dim() == 0 or len(inputs) % tape.records:
        raise ValueError(
            f"{type(layer.module).__name__} got an input of shape {tuple(inputs.shape)}, whose first axis is not the "
            f"batch of {tape.records} records: per-record clipping needs the batch in front"
        )


class _Ruled(torch.autograd.Function):
    """A layer by its rule."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, anchor: Tensor, inputs: Tensor, layer: Layer, tape: Tape, arguments: Collection[Any]
    ) -> Tensor:
        assert layer.rule is not None
        outputs, saved = layer.rule.forward(layer.module, inputs, tape.compute_dtype, *arguments)
        ctx.save_for_backward(*saved)
        ctx.layer, ctx.tape = layer, tape  # type: ignore[attr-defined]
        # Not through save_for_backward, which would refuse to go on if they were overwritten.
        kept = outputs.detach() if layer.rule.wants_outputs else None
        ctx.outputs, ctx.version = kept, outputs._version  # type: ignore[attr-defined]
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layer, tape, outputs = ctx.layer, ctx.tape, ctx.outputs
        ctx.outputs = None  # unlike saved tensors, autograd would keep it to the end of the whole pass
        if outputs is not None and outputs._version != ctx.version:
            outputs = None
        call = tape.call(layer, need_input=ctx.needs_input_grad[1], outputs=outputs)
        grad_inputs, contributions = layer.rule.backward(layer.module, ctx.saved_tensors, grad, call)
        tape.add(layer, contributions)
        return None, grad_inputs, None, None, None


class _Unruled(torch.autograd.Function):
    """A module as a whole, by torch.func."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, anchor: Tensor, layer: Layer, tape: Tape, options: Mapping[str, Any], *inputs: Any
    ) -> Tensor:
        ctx.run = Unruled(  # type: ignore[attr-defined]
            layer.module, layer.names.keys(), inputs, options, records=tape.records, compute_dtype=tape.compute_dtype
        )
        ctx.layer, ctx.tape = layer, tape  # type: ignore[attr-defined]
        return ctx.run.outputs  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, grad_inputs = ctx.run.backward(grad)
        ctx.tape.add(ctx.layer, {name: PerRecord.of(value) for name, value in gradients.items()})
        return None, None, None, None, *grad_inputs
