"""The imprint attack: craft a malicious model before the probe, rebuild images from a hospital's answer after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.imprint.reading import read_records
from hbdp_fed.adversary.planted.campaign import find_and_craft, is_planted, rebuild_from
from hbdp_fed.adversary.planted.checks import check_planting, check_settings
from hbdp_fed.adversary.planted.crafting import loudnesses
from hbdp_fed.adversary.planted.rehearsal import Means
from hbdp_fed.types import ModelSpec, Observation, PublicSideInformation, Reconstruction, Weights


@dataclass(frozen=True)
class ImprintAttack:
    """A malicious server's imprint layer (Fowl et al. 2021, arXiv 2110.13057), built to survive clipping and noise.

    The attack is for one DP-SGD step, by whichever optimiser the hospitals announced. It is as strong as we know how to
    make it: one record a bin, a planted layer that takes nearly all of the clipped norm, images coded against the
    public mean and whitened, the record's factor estimated from all that is known about it, and the best linear
    denoiser that public images allow.

    Attributes:
        bins: Rows of the planted layer. More bins mean fewer collisions of two records and a larger model: the bins
            times the pixels are its size.
        rank: Principal components in the prior on images.
        max_logit_change: How far the planted layer may move a logit.
        gains: Which loudnesses to try, relative to the clipping norm, the least conspicuous first.
        whitenings: Which codings of the image to try.
        max_physical_batch: Bounds the memory of a rehearsed step.
        device: Where rehearsed steps are computed, as PyTorch names it.
        name: What reports call the attack.
    """

    bins: int = 1024
    rank: int = 64
    max_logit_change: float = 0.1
    gains: tuple[float, ...] = (1e2, 1e4)
    whitenings: tuple[float, ...] = (0.25, 0.125)
    max_physical_batch: int = 16
    device: str = "cpu"
    name: str = "imprint"

    def __post_init__(self) -> None:
        check_settings(
            bins=self.bins,
            rank=self.rank,
            max_logit_change=self.max_logit_change,
            gains=self.gains,
            whitenings=self.whitenings,
        )

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial), which is known before any training.

        Raises:
            SettingError: if there are too few, they are too small, or they are neither images nor volumes.
        """
        check_planting(images, attack=self.name)

    def craft(
        self, base: ModelSpec, weights: Weights, public: PublicSideInformation, generator: torch.Generator
    ) -> tuple[ModelSpec, Weights]:
        """The malicious model to hand out, the best that a search on public images finds.

        Half of the public images play the hospital, the other half is what the adversary knows. The model that comes
        out is then built with all of them.

        Args:
            base: The model that the hospitals expect, with ``in_channels`` and ``num_classes`` among its arguments.
            weights: Its current weights.
            public: What the server knows, with the announced mechanism of the hospital it aims at.
            generator: A CPU generator.

        Returns:
            A specification for :func:`hbdp_fed.models.build_model`, and the weights (float32).

        Raises:
            SettingError: if the public images do not suffice (see :meth:`check_public`).
        """
        self.check_public(public.images)
        loud = loudnesses(self.gains, max_grad_norm=public.mechanism.max_grad_norm)
        start = ImprintDesign(
            bins=self.bins,
            loudness=loud[0],
            whitening=self.whitenings[0],
            max_logit_change=self.max_logit_change,
        )
        settings: Sequence[Callable[[ImprintDesign], Sequence[ImprintDesign]]] = (
            lambda design: [replace(design, loudness=loudness) for loudness in loud],
            lambda design: [replace(design, whitening=power) for power in self.whitenings],
        )
        return find_and_craft(
            base,
            weights,
            public,
            start=start,
            settings=settings,
            craft=craft_model,
            read=read_records,
            means=self._means,
            generator=generator,
        )

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild the records of a batch from the answer to the malicious model.

        Args:
            observation: With a model made by :meth:`craft`, and an update of one step.
            generator: A CPU generator, for the rehearsal that decides on denoising and measures the share.

        Returns:
            An image for each bin that holds a record. Its details give the share of the gradient norm that the planted
            layer takes of stand-ins, the rehearsal's SSIM, and the design.

        Raises:
            ValueError: if the hospital was not handed an imprint model.
        """
        if not is_planted(observation.architecture, saturating=True):
            raise ValueError(f"the hospital was handed a '{observation.architecture.name}', not an imprint model")
        self.check_public(observation.public.images)
        result = rebuild_from(observation, read=read_records, means=self._means, generator=generator)
        details = {**result.details, "bins": float(observation.architecture.args["rows"])}
        return replace(result, details=details)

    @property
    def _means(self) -> Means:
        return Means(rank=self.rank, max_physical_batch=self.max_physical_batch, device=self.device)
