"""Which labels the records of a release have, read from the gradient of the model's last layer.

For cross-entropy, a record's gradient in row k of the last layer is (p_k - [k = y]) times the layer's input, and in the
bias p_k - [k = y]: negative in the label's row alone. For one record that gives the label away (Zhao et al. 2020, arXiv
2001.02610), and for several the sums over the batch give how many have each (Yin et al. 2021, arXiv 2104.07586; Geng et
al. 2021, arXiv 2110.09074, who read the counts with the help of public records).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.adversary.gradient_inversion.victim import Cast, Victim, release_noise_std
from hbdp_fed.dpsgd import make_summer, step_weights

_MOST_IMAGES = 64
_AT_ONCE = 16

_RIDGE = 1e-9
"""Relative to the inputs' variance: exact for all that matters, and no division by zero."""

_SHRINKAGE = 0.1
"""Of the inputs' average variance, added in all directions."""

Read = Callable[[Mapping[str, Tensor]], Tensor]
"""Maps a gradient by parameter name to what tells the classes apart in it."""


@dataclass(frozen=True)
class Head:
    """The model's last linear layer. Its input f is extended by a 1 where it has a bias.

    Attributes:
        weight: Its weight's name, (K, F).
        bias: Its bias' name; None without one.
        mean: What public images bring to it on average, float64 (F,) or (F + 1,).
        covariance: Of the same.
    """

    weight: str
    bias: str | None
    mean: Tensor
    covariance: Tensor

    def rows(self, gradient: Mapping[str, Tensor]) -> Tensor:
        """The layer's gradient, (K, F) or (K, F + 1): the sum over records of r_k f."""
        rows = gradient[self.weight]
        return rows if self.bias is None else torch.cat([rows, gradient[self.bias][:, None]], dim=1)

    def direction(self, noise_to_signal: float) -> Tensor:
        """The a for which the rows times a are nearest to the sum of the r: unit gain on average, least variance.

        That is a = S^-1 m / (m^T S^-1 m) with the mean m and S the inputs' covariance plus the noise's (Capon 1969).
        Without noise it is the bias alone, whose input is 1 for every record. The bias is as noisy as every other
        coordinate, so that with noise the features, which say the same many times over, get their part.

        Args:
            noise_to_signal: The noise's variance in a coordinate over the sum of the r^2 in a row.
        """
        identity = torch.eye(len(self.mean), dtype=self.mean.dtype, device=self.mean.device)
        # Noise beyond any measure leaves the mean's direction.
        scale = float(self.covariance.trace()) + 1.0
        ridge = min(max(noise_to_signal, _RIDGE * scale), scale / _RIDGE)
        whitened = torch.linalg.solve(self.covariance + ridge * identity, self.mean)
        gain: Tensor = (self.mean @ whitened).clamp(min=torch.finfo(whitened.dtype).tiny)
        direction: Tensor = whitened / gain
        return direction


def find_head(model: nn.Module, images: Tensor) -> Head | None:
    """The last linear layer in the model's order, if its outputs are the logits; None if there is none.

    Args:
        model: On the device and in the precision of ``images``.
        images: Public ones, (P, C, *spatial).
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        return None
    name, layer = linear.popitem()
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        inputs.append(given[0])
        outputs.append(made)

    handle = layer.register_forward_hook(note)
    try:
        with torch.no_grad():
            logits = [model(part) for part in images.split(_AT_ONCE)]
    finally:
        handle.remove()
    if len(outputs) != len(logits) or not all(map(torch.equal, outputs, logits)):
        return None
    features = torch.cat(inputs)
    centred = features - features.mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    # Fewer images than features leave directions in which none of them differ, and others would.
    covariance += _SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
    mean = features.mean(dim=0)
    has_bias = f"{name}.bias" in dict(model.named_parameters())
    if has_bias:
        mean = torch.cat([mean, torch.ones_like(mean[:1])])
        covariance = functional.pad(covariance, (0, 1, 0, 1))
    return Head(weight=f"{name}.weight", bias=f"{name}.bias" if has_bias else None, mean=mean, covariance=covariance)


def recover_labels(target: list[Tensor], victim: Victim, cast: Cast, public_images: Tensor) -> Tensor:
    """The labels of the dummy records, int64 (r,).

    Of one record, the label is the only negative entry of the sum of the r. Of several, the counts n_y are those whose
    expected sum, that of n_y m_y, is nearest to what was seen. m_y is read in the same way from the mean clipped
    gradient of public images that are given the label y, so that clipping and class weights are accounted for. A model
    without a linear head is read by its whole gradient.

    Args:
        target: What was released (:func:`hbdp_fed.adversary.gradient_inversion.victim.released_target`).
        victim: Who released it.
        cast: The dummy records.
        public_images: float (P, C, *spatial).
    """
    device = target[0].device
    images = public_images[:_MOST_IMAGES].to(device=device, dtype=torch.float64)
    with torch.no_grad():
        classes = victim.model(images[:1]).shape[1]
    gradient = dict(zip(victim.parameters, _first_order(target, victim, cast), strict=True))
    means = [_mean_gradient(victim, images, label, cast.unit_size) for label in range(classes)]
    head = find_head(victim.model, images)
    read = _whole if head is None else _reader(head, means, victim, cast)
    seen = read(gradient)
    if head is not None and cast.records == 1:
        return seen.argmin().reshape(1)
    counts = nearest_counts(torch.stack([read(mean) for mean in means], dim=1), seen, total=cast.records)
    return _dealt(torch.arange(classes, device=device).repeat_interleave(counts.to(device)), cast)


def _reader(head: Head, means: Sequence[Mapping[str, Tensor]], victim: Victim, cast: Cast) -> Read:
    """How to read the sum of the r, one a class, from a gradient with the noise that is to be expected."""
    squared = sum(float(head.rows(mean).square().sum()) for mean in means) / len(means) ** 2
    signal = cast.records * squared / max(float(head.mean.square().sum()), _RIDGE)
    noise = (_to_gradients(victim, cast) * release_noise_std(victim.public)) ** 2
    direction = head.direction(noise / signal if signal > 0 else math.inf)
    return lambda gradient: head.rows(gradient) @ direction


def _whole(gradient: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in gradient.values()])


def nearest_counts(columns: Tensor, seen: Tensor, *, total: int) -> Tensor:
    """Counts n >= 0 that add up to ``total`` and bring ``columns @ n`` near to ``seen``, int64 (K,).

    One record after the other goes where it helps most; then they change their classes as long as that helps.

    Args:
        columns: float64 (D, K).
        seen: float64 (D,).
        total: At least 1.
    """
    # By inner products: D may be all parameters.
    gram, image = (columns.T @ columns).cpu(), (columns.T @ seen).cpu()
    units = torch.eye(len(image), dtype=torch.float64)

    def misfit(n: Tensor) -> float:
        return float(n @ gram @ n - 2 * n @ image)

    counts = torch.zeros_like(image)
    for _ in range(total):
        counts = min((counts + unit for unit in units), key=misfit)
    while True:
        changed = [counts - one + other for one in units for other in units if float(counts @ one) > 0]
        best = min(changed, key=misfit)
        # Rounding must not make it go round in circles.
        if misfit(best) >= misfit(counts) - 1e-12 * abs(misfit(counts)):
            return counts.long()
        counts = best


def _first_order(target: list[Tensor], victim: Victim, cast: Cast) -> list[Tensor]:
    """The sum of the dummy records' gradients as if all had been taken at the weights before the first step."""
    scale, decay = (
        _to_gradients(victim, cast),
        0.0 if victim.public.steps == 1 else victim.public.optimizer.weight_decay,
    )
    lengths = _path_length(victim)
    return [
        scale * (value + lengths * decay * weight.detach())
        for value, weight in zip(target, victim.parameters.values(), strict=True)
    ]


def _to_gradients(victim: Victim, cast: Cast) -> float:
    """What a release is multiplied by to become that sum."""
    if victim.public.steps == 1:
        return 1 / victim.share
    # A record that comes again in every step is counted once.
    steps_of_each = victim.public.steps * len(cast.steps[0]) / cast.records
    a_step = -victim.public.steps / _path_length(victim)
    return a_step * victim.public.expected_batch / victim.share / steps_of_each


def _path_length(victim: Victim) -> float:
    """How far the weights go in all where every step has the same gradient, of norm 1."""
    public, optimizer = victim.public, victim.public.optimizer
    return sum(step_weights((optimizer.learning_rate, *public.later_rates), momentum=optimizer.momentum))


def _mean_gradient(victim: Victim, images: Tensor, label: int, unit_size: int) -> dict[str, Tensor]:
    """What an image that is given this label adds to the sum, on average over images."""
    summer = make_summer(victim.model, victim.public.mechanism, max_physical_batch=_AT_ONCE, loss=victim.loss)
    labels = torch.full((len(images),), label, device=images.device)
    return {name: value / (len(images) * unit_size) for name, value in summer(images, labels).total.items()}


def _dealt(labels: Tensor, cast: Cast) -> Tensor:
    """Sorted labels of all dummies, dealt to the steps in turn, so that each step has its share of every class."""
    places = [place for row in zip(*cast.steps, strict=True) for place in row]
    order = list(dict.fromkeys(places))
    dealt = torch.empty_like(labels)
    dealt[torch.tensor(order, device=labels.device)] = labels
    return dealt
