"""The project's own DP-SGD core: norms first, then one weighted gradient.

A micro-batch costs one forward pass, one backward pass for the gradients of the layers' outputs, the records' norms,
and one weight gradient of the batch, weighted with the clipping factors (book-keeping, Bu et al. 2023, arXiv
2210.00038).
Ordinary back-propagation does all of it but the norms. How a layer finds the norms is its rule's choice: by the
gradients of single records where these are small, by Gram matrices where these are smaller.

The result is exact: the same sum as that of materialised gradients, up to the order in which numbers are added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import MicroBatch, PartSum, clip_factors
from hbdp_fed.dpsgd.grad_modes.tape import Tape, layers_of, run_through
from hbdp_fed.dpsgd.losses import RecordLoss


def ghost_part(
    model: nn.Module,
    *,
    max_grad_norm: float,
    compute_dtype: torch.dtype | None,
    loss: RecordLoss,
) -> MicroBatch:
    """Clip and sum without keeping per-record gradients where they need not be kept.

    The model is left as it is between two calls; frozen parameters stay out of the norm.

    Raises:
        ValueError: if a layer mixes records. The returned function raises it if a parameter is used behind its layer's
            back, so that its per-record gradients are unknown.
    """
    layers = layers_of(model)

    def part(images: Tensor, labels: Tensor, multiplicity: int) -> PartSum:
        tape = Tape(len(labels) // multiplicity, compute_dtype)
        value = run_through(tape, model, layers, images, labels, loss)
        norms = _norms(tape, like=labels)
        usable = torch.isfinite(norms)
        if not bool(usable.all()):
            # A record whose gradient overflowed weighs nothing, but 0 times inf is nan: it must not take part at all.
            rows = usable.repeat_interleave(multiplicity)
            sums = part(images[rows], labels[rows], multiplicity).sums if bool(usable.any()) else {}
            return PartSum(sums=sums, norms=norms, loss=value)
        return PartSum(sums=_weighted_sums(tape, clip_factors(norms, max_grad_norm)), norms=norms, loss=value)

    return part


def _norms(tape: Tape, *, like: Tensor) -> Tensor:
    """Every record's gradient norm over all parameters, float64 (b,)."""
    total = torch.zeros(tape.records, dtype=torch.float64, device=like.device)
    for contribution in tape.contributions.values():
        total += contribution.squared_norms()
    return total.sqrt()


@torch.no_grad()
def _weighted_sums(tape: Tape, factors: Tensor) -> dict[str, Tensor]:
    """The clipped sum by parameter name. Contributions are dropped one by one: each may hold a layer's input."""
    sums = {}
    while tape.contributions:
        name, contribution = tape.contributions.popitem()
        sums[name] = contribution.weighted_sum(factors)
    return sums
