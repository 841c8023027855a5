"""Whether a model that a hospital received is one that honest training can have led to.

Three things are certain, with no false alarm but for a chance of 2e-12 a step: the architecture and the weights before
the first round are those of the charter; and from one round to the next, the global weights cannot have moved further
than the longest update that clipping, noise and learning rate allow. A planted layer changes the architecture, and
weights that were made to trap records lie far from the ones before. What a server plants within that distance is not
found here: the noisier the budget, the longer an honest update may be.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.lengths import farthest, whole_norm
from hbdp_fed.models import build_model, weights_sha256
from hbdp_fed.types import ModelSpec, Weights

MOST_PARAMETERS = 500_000_000
"""A hospital builds no larger model: a server could ask for one that does not fit into its memory."""

_ROUNDING = 2.0**-23
"""Weights travel in float32: each is off by at most half of this share of itself, before and after."""


def tampered(request: TrainRequest, charter: Charter, before: tuple[int, Weights] | None) -> str | None:
    """What is wrong with the request's model; None if nothing is found.

    Args:
        request: What the server sent. Its round is one of the plan's.
        charter: What was agreed to.
        before: The last model that this hospital got, with its round; None before the first.
    """
    weights = request.weights
    # From round 1 on: whoever joins later has nothing to compare with but the architecture.
    if request.round == 1 and weights_sha256(weights) != charter.initial_sha256:
        return "the weights before the first round are not those that were agreed to"
    if before is None:
        return None
    number, last = before
    moved = whole_norm({name: value.double() - last[name].double() for name, value in weights.items()})
    allowed = farthest(charter.settings, last, rounds=request.round - number) if request.round > number else 0.0
    allowed += _ROUNDING * (whole_norm(weights) + whole_norm(last))
    if moved > allowed:
        since = f"since round {number}" if request.round > number else "within this round"
        return f"the weights moved by {moved:.4g} {since}; honest training moves them by at most {allowed:.4g}"
    return None


def misshapen(request: TrainRequest, charter: Charter) -> str | None:
    """Why the request's model is not the charter's; None if it is."""
    if request.architecture != charter.architecture:
        return f"the model is another {request.architecture.name} than the charter's {charter.architecture.name}"
    if {name: tuple(value.shape) for name, value in request.weights.items()} != dict(_shapes(charter.architecture)):
        return "the weights do not fit the charter's model"
    return None


def too_large(architecture: ModelSpec) -> str | None:
    """Why no such model is built here; None if it is one that can be."""
    try:
        shapes = _shapes(architecture)
    except SettingError as error:
        return f"the model {architecture.name} cannot be built: {error.problem}"
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, AttributeError) as error:
        return f"the model {architecture.name} cannot be built: {type(error).__name__}"
    numbers = sum(torch.Size(shape).numel() for _, shape in shapes)
    return (
        f"the model has {numbers:,} weights; at most {MOST_PARAMETERS:,} are built"
        if numbers > MOST_PARAMETERS
        else None
    )


def _shapes(architecture: ModelSpec) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return _shapes_of(architecture.to_json())


@lru_cache(maxsize=8)
def _shapes_of(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    # Shapes alone: no memory is taken for the numbers.
    with torch.device("meta"):
        model = build_model(ModelSpec.from_json(text))
    return tuple((name, tuple(value.shape)) for name, value in model.named_parameters())
