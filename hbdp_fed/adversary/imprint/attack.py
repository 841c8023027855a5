"""The imprint attack: craft a malicious model before the probe, rebuild images from a hospital's answer after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.imprint.decoding import decode, expect
from hbdp_fed.adversary.imprint.geometry import coefficients_of, read_geometry
from hbdp_fed.adversary.imprint.rehearsal import Cast, Rehearsal, cast_roles, planted_gradient, rehearse, side_prior
from hbdp_fed.adversary.prior import MIN_IMAGES, ImagePrior, fit_prior
from hbdp_fed.dpsgd.optimizers import first_gradient
from hbdp_fed.errors import SettingError
from hbdp_fed.types import ModelSpec, Observation, PublicSideInformation, Reconstruction, Weights

logger = logging.getLogger(__name__)

_MIN_PIXELS = 11
"""The similarity's window is 11 pixels wide."""

_TIE = 1e-3
"""Designs whose similarity differs by less are equally good; the less conspicuous one is taken."""


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
        name: What reports call the attack.
    """

    bins: int = 1024
    rank: int = 64
    max_logit_change: float = 0.1
    gains: tuple[float, ...] = (1e2, 1e4)
    whitenings: tuple[float, ...] = (0.25, 0.125)
    max_physical_batch: int = 16
    name: str = "imprint"

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise SettingError("adversary.bins", f"must be at least 2, got {self.bins}")
        if self.rank < 0:
            raise SettingError("adversary.rank", f"must not be negative, got {self.rank}")
        if not 0 < self.max_logit_change < math.inf:
            raise SettingError("adversary.max_logit_change", f"must be positive, got {self.max_logit_change}")
        if not self.gains or not all(0 < gain < math.inf for gain in self.gains):
            raise SettingError("adversary.gains", f"needs at least one positive number, got {self.gains}")
        if not self.whitenings or not all(0 <= power < math.inf for power in self.whitenings):
            raise SettingError("adversary.whitenings", f"needs numbers of at least 0, got {self.whitenings}")

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, H, W), which is known before any training.

        Raises:
            SettingError: if there are too few, or they are too small.
        """
        count, _, height, width = images.shape
        if count < 2 * MIN_IMAGES:
            raise SettingError(
                "adversary.attack",
                f"imprint needs at least {2 * MIN_IMAGES} public (validation) images, there are {count}; "
                "provide more or set adversary.attack=none",
            )
        if min(height, width) < _MIN_PIXELS:
            raise SettingError(
                "adversary.attack",
                f"imprint needs images of at least {_MIN_PIXELS} pixels a side, these have {height}x{width}; "
                "set adversary.attack=none",
            )

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
        cast = cast_roles(base, weights, public, generator)
        prior = side_prior(cast, rank=self.rank)
        noise_seed = int(torch.randint(2**62, (), generator=generator))

        @cache
        def similarity(design: ImprintDesign) -> float:
            architecture, planted = craft_model(base, weights, cast.side_information, design)
            # The same noise for every design: they differ by what they are, not by luck.
            noise = torch.Generator().manual_seed(noise_seed)
            result = self._rehearse(architecture, planted, cast, public, prior, noise)
            logger.info("%s: SSIM %.3f at a share of %.4f", design, result.ssim, result.share)
            return result.ssim

        # One setting after the other: how loud, then how coded. They hardly interact, and a full grid takes longer.
        loudest = _best(self._loudnesses(public), similarity)
        best = _best([replace(loudest, whitening=power) for power in self.whitenings], similarity)
        return craft_model(base, weights, public.images, best)

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild the records of a hospital's batch from its answer to the malicious model.

        Args:
            observation: With a model made by :meth:`craft`, and an update of one step.
            generator: A CPU generator, for the rehearsal that decides on denoising and measures the share.

        Returns:
            An image for each bin that holds a record. Its details give the share of the gradient norm that the planted
            layer takes of stand-ins, the rehearsal's SSIM, and the design.

        Raises:
            ValueError: if the hospital was not handed an imprint model.
        """
        if observation.architecture.name != "imprint":
            raise ValueError(f"the hospital was handed a '{observation.architecture.name}', not an imprint model")
        public, args, weights = observation.public, observation.architecture.args, observation.model_before
        self.check_public(public.images)
        rehearsal = self._dress_rehearsal(observation, generator)

        # Whatever the hospital's optimiser made of it: its first step can be undone.
        planted = {name: observation.released.delta[name] for name in ("imprint.weight", "imprint.bias")}
        gradient = first_gradient(planted, observation.model_before, public.optimizer)
        total = {name: value * public.expected_batch for name, value in gradient.items()}
        geometry = read_geometry(args, weights)
        decoded = decode(
            planted_gradient(total, public.mechanism),
            geometry,
            fit_prior(coefficients_of(public.images), rank=self.rank),
            expect(
                geometry.encode(public.images),
                max_grad_norm=public.mechanism.max_grad_norm,
                expected_batch=public.expected_batch,
                bins=len(geometry.lower),
            ),
            denoise=rehearsal.denoise,
        )
        return Reconstruction(
            images=decoded.images,
            scores=decoded.scores.float(),
            details={
                "share": rehearsal.share,
                "rehearsal_ssim": rehearsal.ssim,
                "denoise": float(rehearsal.denoise),
                "bins": float(len(geometry.lower)),
                "gain": float(weights["readout.weight"].abs().max()),
                "base_scale": float(args["base_scale"]),
            },
        )

    def _loudnesses(self, public: PublicSideInformation) -> Sequence[ImprintDesign]:
        """The designs that differ in how the planted layer drowns the base, the least conspicuous first."""
        norm = public.mechanism.max_grad_norm
        # A gradient below the clipping norm would leave some of the allowance unused.
        unit = max(norm, 1.0) if math.isfinite(norm) else 1.0
        design = ImprintDesign(
            bins=self.bins, gain=1.0, whitening=self.whitenings[0], max_logit_change=self.max_logit_change
        )
        heard = [replace(design, gain=gain * unit) for gain in self.gains]
        return [*heard, replace(heard[-1], base_scale=0.0)]

    def _dress_rehearsal(self, observation: Observation, generator: torch.Generator) -> Rehearsal:
        """The rehearsal with the very model that the hospital was handed."""
        base = ModelSpec(**observation.architecture.args["base"])
        base_weights = {
            name.removeprefix("base."): value
            for name, value in observation.model_before.items()
            if name.startswith("base.")
        }
        cast = cast_roles(base, base_weights, observation.public, generator)
        return self._rehearse(
            observation.architecture,
            observation.model_before,
            cast,
            observation.public,
            side_prior(cast, rank=self.rank),
            generator,
        )

    def _rehearse(
        self,
        architecture: ModelSpec,
        weights: Weights,
        cast: Cast,
        public: PublicSideInformation,
        prior: ImagePrior,
        generator: torch.Generator,
    ) -> Rehearsal:
        return rehearse(
            architecture,
            weights,
            cast,
            public,
            prior=prior,
            generator=generator,
            max_physical_batch=self.max_physical_batch,
        )


def _best(designs: Sequence[ImprintDesign], score: Callable[[ImprintDesign], float]) -> ImprintDesign:
    """The design with the highest score; the earlier one of two that are equally good."""
    best, best_score = designs[0], score(designs[0])
    for design in designs[1:]:
        if score(design) > best_score + _TIE:
            best, best_score = design, score(design)
    return best
