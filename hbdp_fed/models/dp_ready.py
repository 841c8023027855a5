"""From any module to one whose gradient can be had record by record: layers that stand in the way are replaced.

Per-record clipping needs three things of a model. Nothing may mix the records of a batch, and nothing may remember
them: batch normalisation does both. Nothing may draw from PyTorch's global random state, which no seed of a run
reaches: a hospital's round could not be repeated, nor a batch that the audit replays. And nothing should write over
what somebody has yet to read, as activations in place do under Opacus' hooks.

The weights keep their names and shapes: the affine weights of a batch normalisation fit the group normalisation that
takes its place, so a file of the original's weights can still start the converted net.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

_MOST_GROUPS = 32
_LEAST_CHANNELS = 4


@dataclass(frozen=True)
class Replacement:
    """One change to a model.

    Attributes:
        name: The submodule, as ``named_modules`` calls it; "" for the model itself.
        before: What it was, as in ``BatchNorm2d``.
        after: What it is now, as in ``GroupNorm``.
    """

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class DpReady:
    """A converted module.

    Attributes:
        module: To train. What needed no change is the original's own.
        replaced: All that was changed, in the order of ``named_modules``.
    """

    module: nn.Module
    replaced: tuple[Replacement, ...]


def num_groups(channels: int) -> int:
    """Groups for a group normalisation of so many channels: at most 32, at least 4 channels in each, all alike.

    The largest power of two that keeps to it (Wu and He 2018, arXiv 1803.08494, take 32 groups). A channel that is a
    group of its own would be instance normalisation, which leaves nothing but the bias where a level has shrunk to a
    single pixel. Channels that no such number divides are one group.
    """
    groups = math.gcd(channels, _MOST_GROUPS)
    while groups > 1 and channels // groups < _LEAST_CHANNELS:
        groups //= 2
    return groups


def make_dp_ready(model: nn.Module) -> DpReady:
    """Replace what keeps a model from being trained with per-record clipping.

    - Batch normalisation of any kind becomes group normalisation (:func:`num_groups`). Running statistics go with it.
    - Instance normalisation stays as its authors chose it, for it looks at one record only; where it keeps running
      statistics, which are private records' own, it loses them.
    - Dropout and stochastic depth are switched off. Both draw from PyTorch's global random state, and the noise
      regularises already.
    - Activations in place become the same ones out of place, and MONAI's memory-efficient swish
      PyTorch's own, which computes the same and can be differentiated under ``torch.func``.

    A forward method that is written to mix records cannot be mended here: :func:`hbdp_fed.dpsgd.check_record_gradients`
    finds it. Sums in place inside a forward method (``x += identity``) may stay: the project's own engine sets no hooks
    that they could break, and autograd refuses those that would change a gradient.

    Args:
        model: Changed in place: use what is returned.
    """
    replaced: list[Replacement] = []
    successors: dict[int, nn.Module] = {}
    # All of them before any is replaced: a module that stands in several places must stay one.
    for name, module in list(model.named_modules()):
        successor = _successor(module)
        if successor is not None:
            successor.train(module.training)
            successors[id(module)] = successor
            replaced.append(Replacement(name, type(module).__name__, type(successor).__name__))
        else:
            replaced.extend(Replacement(name, *changed) for changed in _switch(module))
    for module in list(model.modules()):
        for place, child in module._modules.items():
            if child is not None and id(child) in successors:
                module._modules[place] = successors[id(child)]
    return DpReady(successors.get(id(model), model), tuple(replaced))


def grouped(replaced: Sequence[Replacement]) -> tuple[Mapping[str, Any], ...]:
    """The same by kind, for people and files: ``before``, ``after`` and ``modules``, the names of all that changed."""
    names = defaultdict(list)
    for one in replaced:
        names[one.before, one.after].append(one.name)
    return tuple({"before": before, "after": after, "modules": found} for (before, after), found in names.items())


def _successor(module: nn.Module) -> nn.Module | None:
    """What takes a module's place; None if it stays."""
    return next((replace(module) for kind, replace in _SUCCESSORS.items() if isinstance(module, kind)), None) or (
        _plain_activation(module)
    )


def _group_norm(norm: _BatchNorm) -> nn.Module:
    new = nn.GroupNorm(num_groups(norm.num_features), norm.num_features, eps=norm.eps, affine=norm.affine)
    return _with_weights_of(norm, new)


def _forgetful(norm: _InstanceNorm) -> nn.Module | None:
    if not norm.track_running_stats:
        return None
    return _with_weights_of(norm, type(norm)(norm.num_features, eps=norm.eps, affine=norm.affine))


def _with_weights_of(old: _BatchNorm | _InstanceNorm, new: nn.Module) -> nn.Module:
    """The same parameters, where there are any: on their device, in their precision, as trainable as they were."""
    for name, value in old.named_parameters(recurse=False):
        setattr(new, name, value)
    return new


def _nothing(dropout: nn.Module) -> nn.Module | None:
    return nn.Identity() if getattr(dropout, "p", 0) else None


_SUCCESSORS: Mapping[type[nn.Module], Callable[[Any], nn.Module | None]] = {
    _BatchNorm: _group_norm,
    _InstanceNorm: _forgetful,
    _DropoutNd: _nothing,
}
"""By what a module is, subclasses included."""


def _plain_activation(module: nn.Module) -> nn.Module | None:
    """PyTorch's own activation for MONAI's that saves memory by an autograd function of the old kind."""
    # By name, so that nobody has to import MONAI, which takes seconds, to convert a net that is not MONAI's.
    kind = type(module)
    swish = kind.__module__.startswith("monai.") and kind.__name__ == "MemoryEfficientSwish"
    return nn.SiLU() if swish else None


_SWITCHES: Mapping[str, tuple[str, Any, Callable[[nn.Module], bool]]] = {
    "inplace": ("in place", False, lambda _: True),
    "drop_connect_rate": ("with stochastic depth", 0.0, lambda _: True),
    "drop_prob": ("with stochastic depth", 0.0, lambda _: True),
    "dropout": ("with dropout", 0.0, lambda module: isinstance(module, nn.MultiheadAttention | nn.RNNBase)),
}
"""By attribute: what a module is that has it, in words, the value without, and of which modules that can be said."""


def _switch(module: nn.Module) -> list[tuple[str, str]]:
    """Switch off what an attribute alone decides; what was changed, before and after."""
    kind, changed = type(module).__name__, []
    for name, (words, off, applies) in _SWITCHES.items():
        if applies(module) and getattr(module, name, None):
            setattr(module, name, off)
            changed.append(
                (f"{kind} {words}", f"{kind} {words.replace('in ', 'out of ').replace('with ', 'without ')}")
            )
    return changed
