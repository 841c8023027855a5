"""Per-record gradients of a module that no rule knows, by ``torch.func``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Unruled:
    """One use of a module, run record by record under ``vmap`` and ready to be differentiated.

    Each record is given parameters of its own, all of the same value. The gradient of the batch with respect to these
    is every record's gradient. Views of no memory stand in for the copies.

    Args:
        module: Any module that maps tensors (b * K, ...) to one tensor (b * K, ...), row by row.
        names: Which of its parameters get gradients.
        inputs: Its positional arguments. Tensors are split by records, everything else is passed as it is.
        options: Its keyword arguments; tensors are refused, since they might hold a batch or not.
        records: b.
        compute_dtype: Precision to compute in; None for the parameters' own.

    Raises:
        ValueError: if a keyword argument is a tensor, or the module returns anything else than one tensor.
    """

    outputs: Tensor

    def __init__(
        self,
        module: nn.Module,
        names: Collection[str],
        inputs: Sequence[Any],
        options: Mapping[str, Any],
        *,
        records: int,
        compute_dtype: torch.dtype | None,
    ) -> None:
        kind = type(module).__name__
        if any(isinstance(value, Tensor) for value in options.values()):
            raise ValueError(f"{kind} is given a tensor by keyword: per-record clipping needs it by position")
        own = dict(module.named_parameters())
        calling = _Calling(module)

        def call(parameters: Mapping[str, Tensor], *arguments: Any) -> Tensor:
            given = {
                f"module.{name}": value if compute_dtype is None else value.to(compute_dtype)
                for name, value in parameters.items()
            }
            outputs = torch.func.functional_call(calling, given, arguments, dict(options))
            if not isinstance(outputs, Tensor):
                raise ValueError(f"{kind} returns {type(outputs).__name__}: per-record clipping needs one tensor")
            return outputs

        self._records = records
        self._differentiable = [isinstance(x, Tensor) and x.is_floating_point() for x in inputs]
        split = [x.detach().unflatten(0, (records, -1)) if isinstance(x, Tensor) else x for x in inputs]
        in_dims = (0, *(0 if isinstance(x, Tensor) else None for x in inputs))
        mapped = torch.func.vmap(call, in_dims=in_dims, randomness="different")

        def of_floats(parameters: Mapping[str, Tensor], floats: Sequence[Tensor]) -> Tensor:
            remaining = iter(floats)
            arguments = [next(remaining) if d else x for x, d in zip(split, self._differentiable, strict=True)]
            outputs: Tensor = mapped(parameters, *arguments)
            return outputs

        expanded = {name: own[name].detach().expand(records, *own[name].shape) for name in names}
        floats = [x for x, d in zip(split, self._differentiable, strict=True) if d]
        mapped_outputs, self._pull_back, *_ = torch.func.vjp(of_floats, expanded, floats)
        self.outputs = mapped_outputs.flatten(0, 1)

    def backward(self, grad: Tensor) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Per-record gradients (b, *shape) by parameter name, and the gradients of the inputs in their order."""
        gradients, of_floats = self._pull_back(grad.unflatten(0, (self._records, -1)))
        remaining = iter(of_floats)
        return gradients, [next(remaining).flatten(0, 1) if d else None for d in self._differentiable]


class _Calling(nn.Module):
    """A module under its class's forward: that of the instance is replaced while it is watched, and would call us."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return type(self.module).forward(self.module, *arguments, **options)
