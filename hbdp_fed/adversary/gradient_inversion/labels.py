"""Which labels the records of a release have, read from the gradient of the model's last layer.

For cross-entropy, a record's gradient in row k of the last layer is (p_k - [k = y]) times the layer's input, and in the
bias p_k - [k = y]: negative in the label's row alone. For one record that gives the label away (Zhao et al. 2020, arXiv
2001.02610), and for several the sums over the batch give how many have each (Yin et al. 2021, arXiv 2104.07586; Geng et
al. 2021, arXiv 2110.09074, who read the counts with the help of public records).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from hbdp_fed.adversary.gradient_inversion.victim import Cast, Victim
from hbdp_fed.dpsgd import make_summer, step_weights

_MOST_IMAGES = 64
_AT_ONCE = 16


@dataclass(frozen=True)
class Head:
    """The model's last linear layer.

    Attributes:
        weight: Its weight's name, (K, F).
        bias: Its bias' name; None without one.
        inputs: What public images bring to it on average, float64 (F,).
    """

    weight: str
    bias: str | None
    inputs: Tensor

    def signal(self, gradient: Mapping[str, Tensor]) -> Tensor:
        """One number a class, float64 (K,): the gradient along what the layer's input is on average.

        The bias alone would do without noise. Its noise is as large as that of every other coordinate, and the weight's
        rows say the same as often as the input has features.
        """
        signal = gradient[self.weight] @ self.inputs
        return signal if self.bias is None else signal + gradient[self.bias]


def find_head(model: nn.Module, images: Tensor) -> Head | None:
    """The last linear layer in the model's order of parameters, if that makes its logits; None if there is none.

    Args:
        model: On the device and in the precision of ``images``.
        images: Public ones, (P, C, *spatial).
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        return None
    name, layer = linear.popitem()
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        try:
            logits = [model(part) for part in images.split(_AT_ONCE)]
        finally:
            handle.remove()
    if not seen or seen[0].dim() != 2 or logits[0].shape != (len(seen[0]), layer.out_features):
        return None
    return Head(
        weight=f"{name}.weight",
        bias=f"{name}.bias" if f"{name}.bias" in dict(model.named_parameters()) else None,
        inputs=torch.cat(seen).mean(dim=0),
    )


def recover_labels(target: list[Tensor], victim: Victim, cast: Cast, public_images: Tensor) -> Tensor:
    """The labels of the dummy records, int64 (r,).

    Of one record, the label is the only negative entry of the head's signal. Of several, the counts n_y are those whose
    expected signal, the sum of n_y m_y, is nearest to what was seen. m_y is the mean clipped gradient of public images
    that are given the label y, so that clipping and class weights are accounted for. A model without a linear head is
    read by its whole gradient in the same way.

    Args:
        target: What was released (:func:`hbdp_fed.adversary.gradient_inversion.victim.released_target`).
        victim: Who released it.
        cast: The dummy records.
        public_images: float (P, C, *spatial).
    """
    device = target[0].device
    images = public_images[:_MOST_IMAGES].to(device=device, dtype=torch.float64)
    head = find_head(victim.model, images)
    gradient = dict(zip(victim.parameters, _first_order(target, victim, cast), strict=True))
    with torch.no_grad():
        classes = victim.model(images[:1]).shape[1]
    if head is not None and cast.records == 1:
        return head.signal(gradient).argmin().reshape(1)
    columns = []
    for label in range(classes):
        mean = _mean_gradient(victim, images, label)
        columns.append(torch.cat([v.flatten() for v in mean.values()]) if head is None else head.signal(mean))
    seen = torch.cat([v.flatten() for v in gradient.values()]) if head is None else head.signal(gradient)
    counts = nearest_counts(torch.stack(columns, dim=1), seen, total=cast.records)
    labels = torch.arange(classes, device=device).repeat_interleave(counts.to(device))
    return _dealt(labels, cast)


def nearest_counts(columns: Tensor, seen: Tensor, *, total: int) -> Tensor:
    """Counts n >= 0 that add up to ``total`` and bring ``columns @ n`` near to ``seen``, int64 (K,).

    From the rounded solution in real numbers, one record after the other changes its class as long as that helps.

    Args:
        columns: float64 (D, K).
        seen: float64 (D,).
        total: At least 1.
    """
    gram, image = (columns.T @ columns).cpu(), (columns.T @ seen).cpu()
    # By the Gram matrix, for D may be all parameters. Its root has the same least-squares solution.
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-12 * values.max()
    root = vectors[:, kept] * values[kept].sqrt()
    shares = torch.from_numpy(nnls(root.T.numpy(), (vectors[:, kept].T @ image / values[kept].sqrt()).numpy())[0])
    shares = (
        shares * (total / shares.sum()) if float(shares.sum()) > 0 else torch.full_like(shares, total / len(shares))
    )
    counts = shares.floor()
    missing = total - int(counts.sum())
    counts[(shares - counts).argsort(descending=True)[:missing]] += 1

    def misfit(n: Tensor) -> float:
        return float(n @ gram @ n - 2 * n @ image)

    while True:
        moves = [
            counts - one + other
            for one in torch.eye(len(counts), dtype=torch.float64)
            for other in torch.eye(len(counts), dtype=torch.float64)
            if float(counts @ one) > 0 and not torch.equal(one, other)
        ]
        best = min(moves, key=misfit, default=counts)
        if misfit(best) >= misfit(counts) - 1e-12 * abs(misfit(counts)):
            return counts.long()
        counts = best


def _first_order(target: list[Tensor], victim: Victim, cast: Cast) -> list[Tensor]:
    """The sum of the dummy records' gradients as if all had been taken at the weights before the first step."""
    public, optimizer = victim.public, victim.public.optimizer
    if public.steps == 1:
        return [value / victim.share for value in target]
    weights = step_weights((optimizer.learning_rate, *public.later_rates), momentum=optimizer.momentum)
    length = sum(weights)
    # Records that come again in every step are counted once.
    repeats = public.steps * len(cast.steps[0]) / cast.records
    scale = public.expected_batch * public.steps / repeats / victim.share
    return [
        (-value / length - optimizer.weight_decay * weight.detach()) * scale
        for value, weight in zip(target, victim.parameters.values(), strict=True)
    ]


def _mean_gradient(victim: Victim, images: Tensor, label: int) -> dict[str, Tensor]:
    """The mean clipped gradient of images that are given this label."""
    summer = make_summer(victim.model, victim.public.mechanism, max_physical_batch=_AT_ONCE, loss=victim.loss)
    labels = torch.full((len(images),), label, device=images.device)
    return {name: value / len(images) for name, value in summer(images, labels).total.items()}


def _dealt(labels: Tensor, cast: Cast) -> Tensor:
    """Sorted labels of all dummies, dealt to the steps in turn, so that each step has its share of every class."""
    places = [place for row in zip(*cast.steps, strict=True) for place in row]
    order = list(dict.fromkeys(places))
    dealt = torch.empty_like(labels)
    dealt[torch.tensor(order, device=labels.device)] = labels
    return dealt
