"""The measures: what of a model tells weights made to trap records from weights that training leads to.

Each maps a :class:`~hbdp_fed.screening.looking.Look` to a positive figure a place, a parameter or a layer. A planted
layer works by a few properties that honest training has no use for. Its rows answer to different records, so that their
gradients hardly overlap. It takes nearly all of a record's gradient, or clipping would leave little of it. And its
weights are made to measure: rows that are copies of each other, a few values repeated, scales far off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.screening.looking import Look

_FLOOR = 1e-12
"""Figures are compared by their ratios: none is smaller than this."""

_SMALL_BIAS = 0.3

_FEWEST_ROWS, _FEWEST_VALUES = 4, 16
"""Smaller matrices and tensors have no statistics worth the name."""

_MOST_VALUES, _MOST_ROWS = 2**16, 64
"""Larger ones are judged by a part of their values or rows, spread evenly."""


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        of: The figures, positive, by place. Places of which a look says nothing are left out.
        below: By what factor a figure may fall short of the smallest that honest models showed; None: by any.
        above: By what factor it may exceed the largest; None: by any.
        words: What the figure is, for people.
        unseen: The smallest figure that passes where no honest model had any, because nothing of it has a gradient.
    """

    of: Callable[[Look], Mapping[str, float]]
    below: float | None
    above: float | None
    words: str
    unseen: float = 0.0


def shared_rows(look: Look) -> dict[str, float]:
    """How much the rows of a weight that two images' gradients are in overlap, in [0, 1], on average over pairs.

    With p_i(r) the share of row r in image i's squared gradient norm, the overlap of i and j is the Bhattacharyya
    coefficient sum_r sqrt(p_i(r) p_j(r)): 1 where both use all rows alike, 0 where no row serves both. Rows stand for
    units: a row of a linear layer has a gradient where its unit is active.
    """
    found = {}
    for name, energies in look.energies.items():
        if look.weights[name].dim() < 2 or energies.shape[1] < _FEWEST_ROWS:
            continue
        whole = energies.sum(dim=1, keepdim=True)
        used = (energies / whole)[whole[:, 0] > 0].sqrt()
        if len(used) > 1:
            similarity = used @ used.T
            pairs = len(used) * (len(used) - 1)
            found[name] = _positive((similarity.sum() - similarity.diagonal().sum()) / pairs)
    return found


def gradient_elsewhere(look: Look) -> dict[str, float]:
    """Which share of an image's squared gradient norm lies outside a layer, in [0, 1]: the median over the images."""
    layers: dict[str, Tensor] = {}
    for name, energies in look.energies.items():
        layer = _layer_of(name)
        layers[layer] = layers.get(layer, torch.zeros(1, dtype=torch.float64)) + energies.sum(dim=1)
    if not layers:
        return {}
    together = torch.stack(list(layers.values()))
    whole = together.sum(dim=0)
    seen = whole > 0
    if not bool(seen.any()):
        return {}
    found = {}
    for place, layer in enumerate(layers):
        # Summed without the layer and not taken from 1, which would leave rounding errors.
        others = torch.cat([together[:place], together[place + 1 :]]).sum(dim=0)
        found[layer] = _positive((others[seen] / whole[seen]).median())
    return found


def moving(look: Look) -> dict[str, float]:
    """Which share of the images gives a parameter any gradient at all; a branch that is switched off has none."""
    return {name: _positive((value.sum(dim=1) > 0).double().mean()) for name, value in look.energies.items()}


def size(look: Look) -> dict[str, float]:
    """The root mean square of a weight's values. What is no matrix may well pass zero on its way: slopes, biases."""
    return {name: _rms(value) for name, value in look.weights.items() if value.dim() > 1}


def tails(look: Look) -> dict[str, float]:
    """The kurtosis of a parameter's values: 3 for Gaussian ones, large where a few carry everything; 1 if all agree."""
    found = {}
    for name, value in _with_statistics(look):
        centred = _some(value) - _some(value).mean()
        variance = centred.square().mean()
        found[name] = _positive(centred.pow(4).mean() / variance.square()) if variance > _FLOOR**2 else 1.0
    return found


def peak(look: Look) -> dict[str, float]:
    """The largest magnitude of a parameter's values over the median magnitude; 1 where all are zero."""
    found = {}
    for name, value in _with_statistics(look):
        magnitudes = _some(value).abs()
        largest = float(magnitudes.max())
        found[name] = largest / max(float(magnitudes.median()), _FLOOR * largest) if largest > 0 else 1.0
    return found


def distinct_values(look: Look) -> dict[str, float]:
    """How many different values a parameter has, over how many values; training makes all of them different."""
    return {name: len(_some(value).unique()) / len(_some(value)) for name, value in _with_statistics(look)}


def distinct_rows(look: Look) -> dict[str, float]:
    """How many directions the rows of a weight have, over the rows: n / sum over pairs of cos^2, from 1/n to 1.

    It is the participation ratio of the eigenvalues of the rows' matrix of cosines, an effective rank.
    """
    found = {}
    for name, value in look.weights.items():
        if value.dim() < 2 or value.shape[0] < _FEWEST_ROWS:
            continue
        rows = value.detach().double().flatten(start_dim=1)
        rows = rows[:: max(1, -(-len(rows) // _MOST_ROWS))]
        norms = rows.norm(dim=1, keepdim=True)
        rows = (rows / norms)[norms[:, 0] > 0]
        if len(rows):
            found[name] = _positive(len(rows) / (rows @ rows.T).square().sum())
    return found


def bias_beside_weight(look: Look) -> dict[str, float]:
    """The root mean square of a layer's biases over that of its weights; thresholds of a measurement are large.

    Biases start at zero, and where a norm takes them out again nothing but noise or rounding moves them. So small ones
    tell nothing, and all below 0.3 of the weights count as that. Nor do a few biases: those of two classes'
    logits go on growing with training, past what a hospital's own few steps show.
    """
    found = {}
    for name, value in look.weights.items():
        bias = look.weights.get(f"{_layer_of(name)}.bias")
        if name.endswith(".weight") and value.dim() > 1 and bias is not None and bias.numel() >= _FEWEST_VALUES:
            found[_layer_of(name)] = max(_rms(bias) / _rms(value), _SMALL_BIAS)
    return found


MEASURES: Mapping[str, Measure] = {
    "shared_rows": Measure(
        shared_rows, below=2.0, above=None, words="the overlap of the rows that two images use", unseen=0.25
    ),
    "gradient_elsewhere": Measure(
        gradient_elsewhere,
        below=30.0,
        above=None,
        words="the share of the squared gradient norm outside of it",
        unseen=1e-3,
    ),
    "moving": Measure(moving, below=4.0, above=None, words="the share of images that give it a gradient"),
    "size": Measure(size, below=10.0, above=10.0, words="the root mean square of its values"),
    "tails": Measure(tails, below=None, above=8.0, words="the kurtosis of its values"),
    "peak": Measure(peak, below=None, above=10.0, words="the largest of its magnitudes over the median one"),
    "distinct_values": Measure(distinct_values, below=2.0, above=None, words="the share of different values"),
    "distinct_rows": Measure(distinct_rows, below=4.0, above=None, words="the share of different directions of rows"),
    "bias_beside_weight": Measure(
        bias_beside_weight, below=None, above=10.0, words="the size of its biases beside its weights"
    ),
}
"""The measures by name. Another one is a function and a line here."""


def _layer_of(name: str) -> str:
    """The module that a parameter belongs to; the parameter itself where that is the whole model."""
    return name.rpartition(".")[0] or name


def _with_statistics(look: Look) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in look.weights.items() if value.numel() >= _FEWEST_VALUES]


def _some(value: Tensor) -> Tensor:
    """The values as float64 (n,), or as many of them as are judged."""
    flat = value.detach().flatten()
    return flat[:: max(1, -(-len(flat) // _MOST_VALUES))].double()


def _rms(value: Tensor) -> float:
    return _positive(value.detach().double().square().mean().sqrt())


def _positive(value: Tensor) -> float:
    return max(float(value), _FLOOR)
