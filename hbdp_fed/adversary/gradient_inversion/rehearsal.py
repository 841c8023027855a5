"""Trying the search out on public images, to choose how much smoothness to ask for. No hospital's record is involved.

How far to trust a gradient against what images look like depends on the noise, on the model and on how many records
there are. The adversary knows the mechanism, so it can release public images under it itself and see what comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary.gradient_inversion.labels import recover_labels
from hbdp_fed.adversary.gradient_inversion.search import Plan, invert
from hbdp_fed.adversary.gradient_inversion.victim import Cast, Victim, release_noise_std

logger = logging.getLogger(__name__)


def best_plan(
    plans: Sequence[Plan],
    victim: Victim,
    cast: Cast,
    public_images: Tensor,
    *,
    batches: int,
    generator: torch.Generator,
) -> tuple[Plan, float | None]:
    """The plan that brings most back of public images that play the hospital's records.

    Args:
        plans: To choose from.
        victim: The hospital as imagined.
        cast: The dummy records of a release.
        public_images: (P, C, *spatial); those that play are not among what the adversary then knows.
        batches: How many releases every plan is tried on.
        generator: A CPU generator.

    Returns:
        The plan, and the mean SSIM of its reconstructions with the stand-ins; None where nothing was tried, because
        there is nothing to choose or to choose by.
    """
    needed = batches * cast.records
    if len(plans) == 1 or needed == 0 or 2 * needed > len(public_images):
        return plans[0], None
    order = torch.randperm(len(public_images), generator=generator)
    known = public_images[order[needed:]]
    seed = int(torch.randint(2**62, (), generator=generator))
    scores = []
    for plan in plans:
        # The same noise and starts for every plan: they differ by what they are, not by luck.
        stream = torch.Generator().manual_seed(seed)
        score = 0.0
        for batch in order[:needed].split(cast.records):
            score += _similarity(plan, victim, cast, public_images[batch], known, stream) / batches
        scores.append(score)
        logger.info("rehearsed with %s and smoothness %g: SSIM %.3f", plan.objective, plan.tv_weight, score)
    best = max(range(len(plans)), key=scores.__getitem__)
    return plans[best], scores[best]


def _similarity(
    plan: Plan, victim: Victim, cast: Cast, stand_ins: Tensor, known: Tensor, stream: torch.Generator
) -> float:
    """Mean SSIM of each stand-in with the nearest of what comes back of their release."""
    device = next(iter(victim.parameters.values())).device
    images = stand_ins.to(device=device, dtype=torch.float64)
    with torch.no_grad():
        # The adversary knows no labels, and where a model is right the gradient is smallest: the hard case.
        own = victim.model(images).argmax(dim=1)
    target = [value.detach() for value in victim.release(images, own, cast)]
    std = release_noise_std(victim.public)
    target = [
        value + std * torch.randn(value.shape, generator=stream, dtype=torch.float64).to(device) for value in target
    ]
    labels = recover_labels(target, victim, cast, known)
    found = invert(target, victim, cast, labels, known, plan, stream).images.float()
    pairs = [(one, other) for other in stand_ins.float() for one in found]
    similarity = structural_similarity_index_measure(
        torch.stack([one for one, _ in pairs]), torch.stack([other for _, other in pairs]), data_range=1.0,
        reduction="none",
    )  # fmt: skip
    assert isinstance(similarity, Tensor)
    return float(similarity.view(len(stand_ins), len(found)).amax(dim=1).mean())
