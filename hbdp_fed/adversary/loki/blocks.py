"""The planted layer's rows in blocks, one for each hospital: joined, handed out one by one, told apart again.

Block i of a layer of n blocks holds rows i * b to (i + 1) * b - 1, with b the rows over n. All blocks are copies of one
planted model's layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from hbdp_fed.adversary.planted.gradient import BIAS, WEIGHT, PlantedGradient
from hbdp_fed.types import ModelSpec, Weights

_READOUT = "readout.weight"
"""The layer's parameter that has a column, not a row, for each of its rows."""

_INACTIVE = -1.0
"""The bias of a row that shall be active for no image: its weights are 0, so that this is its value whatever comes."""


def repeated(architecture: ModelSpec, weights: Weights, count: int) -> tuple[ModelSpec, Weights]:
    """A planted model with as many copies of its layer, one block beside the other.

    Nobody can be handed this one: its logits move as many times as far. It is what the server keeps to read by.

    Args:
        architecture: A planted model.
        weights: Its weights.
        count: How many blocks, at least 1.
    """
    wider = {
        **weights,
        WEIGHT: weights[WEIGHT].repeat(count, 1),
        BIAS: weights[BIAS].repeat(count),
        _READOUT: weights[_READOUT].repeat(1, count),
    }
    return _with_rows(architecture, count * int(architecture.args["rows"])), wider


def of_one_hospital(weights: Weights, place: int, count: int) -> Weights:
    """The weights in which no row but those of one block can be active: what the hospital of that place is handed.

    A row with zero weights and a negative bias has the same negative value for every image. Its activation is 0 and
    flat there, so that its gradient is zero, exactly, and so is that of its column of the readout.

    Args:
        weights: Of a planted model with blocks.
        place: Whose block is left, from 0.
        count: How many blocks there are.
    """
    rows = len(weights[BIAS])
    kept = torch.zeros(rows, dtype=torch.bool)
    kept[_span(rows, place, count)] = True
    return {
        **weights,
        WEIGHT: weights[WEIGHT] * kept[:, None],
        BIAS: torch.where(kept, weights[BIAS], _INACTIVE),
    }


def first_block(architecture: ModelSpec, weights: Weights, count: int) -> tuple[ModelSpec, Weights]:
    """The inverse of :func:`repeated`.

    Raises:
        ValueError: if the model does not consist of so many equal blocks.
    """
    rows, biases = int(architecture.args["rows"]), weights[BIAS]
    if rows % count or not torch.equal(biases, biases[: rows // count].repeat(count)):
        raise ValueError(f"the planted layer of {rows} rows is none of {count} equal blocks, one for each hospital")
    first = _span(rows, 0, count)
    block = {
        **weights,
        WEIGHT: weights[WEIGHT][first],
        BIAS: biases[first],
        _READOUT: weights[_READOUT][:, first],
    }
    return _with_rows(architecture, rows // count), block


def split(gradient: PlantedGradient, count: int) -> list[PlantedGradient]:
    """What a sum says of each block, in their order; the noise is in all of them."""
    spans = [_span(len(gradient.bias), place, count) for place in range(count)]
    return [replace(gradient, rows=gradient.rows[span], bias=gradient.bias[span]) for span in spans]


def _span(rows: int, place: int, count: int) -> slice:
    return slice(place * rows // count, (place + 1) * rows // count)


def _with_rows(architecture: ModelSpec, rows: int) -> ModelSpec:
    return replace(architecture, args={**architecture.args, "rows": rows})
