"""The halves of an attack that plants a layer: find the best design before, rebuild images from the answer after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import coefficients_of, read_code
from hbdp_fed.adversary.planted.crafting import MODEL, unplanted
from hbdp_fed.adversary.planted.decoding import rebuild
from hbdp_fed.adversary.planted.evidence import expect
from hbdp_fed.adversary.planted.gradient import PlantedGradient, released_gradient
from hbdp_fed.adversary.planted.rehearsal import Means, Read, set_stage
from hbdp_fed.adversary.planted.search import search
from hbdp_fed.adversary.prior import fit_prior
from hbdp_fed.types import ModelSpec, Observation, PublicSideInformation, Reconstruction, Weights

logger = logging.getLogger(__name__)

Design = TypeVar("Design")
Craft = Callable[[ModelSpec, Weights, Tensor, Design], tuple[ModelSpec, Weights]]
"""Builds the malicious model around a base with its weights, from public images (P, C, *spatial) and a design."""


def find_and_craft(
    base: ModelSpec,
    weights: Weights,
    public: PublicSideInformation,
    *,
    start: Design,
    settings: Sequence[Callable[[Design], Sequence[Design]]],
    craft: Craft[Design],
    read: Read,
    means: Means,
    generator: torch.Generator,
) -> tuple[ModelSpec, Weights]:
    """The malicious model to hand out, the best that a search on public images finds.

    Half of the public images play the hospital, the other half is what the adversary knows. The model that comes out is
    then built with all of them.

    Args:
        base: The model that the hospitals expect.
        weights: Its current weights.
        public: What the server knows.
        start: The design to begin with; hashable.
        settings: What may be changed in it (see :func:`hbdp_fed.adversary.planted.search.search`).
        craft: Builds the model of a design.
        read: The attack's way to measure.
        means: What there is to try things out with.
        generator: A CPU generator.
    """
    stage = set_stage(base, weights, public, read=read, means=means, generator=generator)
    noise_seed = int(torch.randint(2**62, (), generator=generator))

    @cache
    def similarity(design: Design) -> float:
        architecture, planted = craft(base, weights, stage.cast.side_information, design)
        # The same noise for every design: they differ by what they are, not by luck.
        result = stage.rehearse(architecture, planted, torch.Generator().manual_seed(noise_seed))
        logger.info("%s: SSIM %.3f at a share of %.4f", design, result.ssim, result.share)
        return result.ssim

    return craft(base, weights, public.images, search(start, settings, similarity))


def rebuild_from(observation: Observation, *, read: Read, means: Means, generator: torch.Generator) -> Reconstruction:
    """Rebuild the records of a batch from the answer to a planted model.

    Args:
        observation: With a planted model, and an update of one step.
        read: The attack's way to measure.
        means: What there is to try things out with.
        generator: A CPU generator, for the rehearsal that decides on denoising and measures the share.

    Returns:
        The images, with the rehearsal's figures and the design's loudness as details.
    """
    return rebuild_each(
        [(released_gradient(observation), observation.public.expected_records)],
        observation.architecture,
        observation.model_before,
        observation.public,
        read=read,
        means=means,
        generator=generator,
    )


def rebuild_each(
    seen: Sequence[tuple[PlantedGradient, float]],
    architecture: ModelSpec,
    weights: Weights,
    public: PublicSideInformation,
    *,
    read: Read,
    means: Means,
    generator: torch.Generator,
) -> Reconstruction:
    """The same for the batches of several hospitals that are seen apart, and were handed the same planted model.

    Args:
        seen: At least one of what is seen of an answer in the planted layer, with how many records to expect in it.
        architecture: The planted model.
        weights: Its weights.
        public: The mechanism and the batch to rehearse with.
        read: The attack's way to measure.
        means: What there is to try things out with.
        generator: A CPU generator, for the rehearsal that decides on denoising and measures the share.

    Returns:
        The images of all of them, the surest first, with the rehearsal's figures and the design's loudness as details.
    """
    # With the very model that the hospitals were handed.
    stage = set_stage(*unplanted(architecture, weights), public, read=read, means=means, generator=generator)
    rehearsal = stage.rehearse(architecture, weights, generator)
    expectation = expect(architecture.args, weights, public.images, public)
    code = read_code(architecture.args, weights)
    prior = fit_prior(coefficients_of(public.images), rank=means.rank)
    found = [
        read(gradient, architecture.args, weights, replace(expectation, expected_records=records))
        for gradient, records in seen
    ]
    images = torch.cat([rebuild(measured, code, prior, denoise=rehearsal.denoise) for measured in found])
    scores = torch.cat([measured.scores for measured in found])
    order = torch.argsort(scores, descending=True, stable=True)
    return Reconstruction(
        images=images[order],
        scores=scores[order].float(),
        details={
            "share": rehearsal.share,
            "rehearsal_ssim": rehearsal.ssim,
            "denoise": float(rehearsal.denoise),
            "gain": float(weights["readout.weight"].abs().max()),
            "base_scale": float(architecture.args["base_scale"]),
        },
    )


def is_planted(architecture: ModelSpec, *, saturating: bool) -> bool:
    """Whether a hospital was handed a planted model with rows that saturate, or with plain ReLU rows."""
    args: Mapping[str, object] = architecture.args
    return architecture.name == MODEL and (args["ceiling"] is not None) == saturating
