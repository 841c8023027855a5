"""The LOKI attack: every hospital is handed a model of its own, so that their sum still holds their records apart.

Secure aggregation shows a server nothing but the hospitals' sum, and a layer planted in one model for all collects
everybody's records in the same rows. Zhao et al. (2023, arXiv 2303.12233) hand every client another model. Theirs
begins with convolution kernels, a set for each client that passes the image on unchanged. A client's model has all
kernels at zero but those of its own set, so that only the weights behind that set see anything, and all others have a
gradient of exactly zero: the sum of all clients' gradients is each client's own, side by side.

Here the planted layer sees the image without kernels before it (:mod:`hbdp_fed.models.planted`), and a hospital has a
block of rows instead of kernels. Its model has zero weights and a negative bias in all rows but its own block's, which
leaves them inactive for any image. It is the same attack, since what it rests on is the same: models that differ from
hospital to hospital, and gradients that are exactly zero wherever another hospital's records leave theirs. Differences:

- The authors keep clients apart in the *columns* of one layer, of which all share the rows. Its size is the same: bins
  times clients times pixels. But rows that are shared share their bias, whose gradient tells a record's factor: they
  set each image to the range [0, 1] instead. With rows of its own a record comes back at its own brightness, its
  gradient can be weighed against noise, and the image can be coded before it reaches the layer.
- They scale kernels up so that the mean update of several local steps can be read. A probe here is one step.
- The layer is loud enough to take nearly all of the clipped norm, and images are denoised, as in the imprint attack.

Every row is noised by every hospital, so that a finite budget hides records from LOKI as it does from any attack on the
sum: what LOKI undoes is the mixing, not the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint import ImprintAttack
from hbdp_fed.adversary.imprint.reading import read_records
from hbdp_fed.adversary.loki.blocks import first_block, of_one_hospital, repeated, split
from hbdp_fed.adversary.planted.campaign import is_planted, rebuild_each
from hbdp_fed.adversary.planted.gradient import released_gradient
from hbdp_fed.adversary.planted.rehearsal import Means
from hbdp_fed.types import ModelSpec, Observation, PublicSideInformation, Reconstruction, Weights


@dataclass(frozen=True)
class LokiAttack:
    """A malicious server's attack on a sum (Zhao et al. 2023, arXiv 2303.12233), by an imprint layer a hospital.

    Each block is the imprint attack's layer, found and read as that one is (:class:`ImprintAttack`).

    Attributes:
        shares: By hospital, in their order, its announced weight in the mean, positive; each has a block.
        batches: The same, the expected batch that its clipped sum is divided by, positive.
        bins: Rows of each block. The hospitals times the bins times the pixels are the planted layer's size.
        rank: Principal components in the prior on images.
        max_physical_batch: Bounds the memory of a rehearsed step.
        device: Where rehearsed steps are computed, as PyTorch names it.
        name: What reports call the attack.

    Raises:
        ValueError: if shares and batches are not of the same hospitals, or not positive.
    """

    shares: tuple[float, ...] = (0.5, 0.5)
    batches: tuple[float, ...] = (8.0, 8.0)
    bins: int = 1024
    rank: int = 64
    max_physical_batch: int = 16
    device: str = "cpu"
    name: str = "loki"

    def __post_init__(self) -> None:
        if not 0 < len(self.shares) == len(self.batches) or not all(value > 0 for value in self.shares + self.batches):
            raise ValueError(f"every hospital needs a positive share and batch, got {self.shares} and {self.batches}")
        # Whose settings the others are checks them.
        self._imprint  # noqa: B018

    @property
    def hospitals(self) -> int:
        """How many there are, and so how many blocks."""
        return len(self.shares)

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial), which is known before any training.

        Raises:
            SettingError: if there are too few, they are too small, or they are neither images nor volumes.
        """
        self._imprint.check_public(images)

    def craft(
        self, base: ModelSpec, weights: Weights, public: PublicSideInformation, generator: torch.Generator
    ) -> tuple[ModelSpec, Weights]:
        """The model with all hospitals' blocks, which the server keeps; nobody is handed it.

        Args:
            base: The model that the hospitals expect, with ``in_channels`` and ``num_classes`` among its arguments.
            weights: Its current weights.
            public: What the server knows beside the hospitals' mean.
            generator: A CPU generator.

        Returns:
            A specification for :func:`hbdp_fed.models.build_model`, and the weights (float32).

        Raises:
            SettingError: if the public images do not suffice (see :meth:`check_public`).
        """
        block = self._imprint.craft(base, weights, self._of_a_block(public), generator)
        return repeated(*block, self.hospitals)

    def for_hospital(self, weights: Weights, place: int) -> Weights:
        """What one hospital is handed of the model that :meth:`craft` made, in the same architecture.

        Args:
            weights: Of that model.
            place: The hospital's, from 0.
        """
        return of_one_hospital(weights, place, self.hospitals)

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild the records of all hospitals' batches from the mean of their answers.

        A record of a hospital that counts less in the mean is quieter there, beside the same noise. Its block is made
        as loud as that of the loudest hospital, which is taken to have answered.

        Args:
            observation: With a model made by :meth:`craft`, and the mean of updates of one step.
            generator: A CPU generator, for the rehearsal that decides on denoising and measures the share.

        Returns:
            An image for each bin of each hospital that holds a record. Its details give the share of the gradient norm
            that the planted layer takes of stand-ins, the rehearsal's SSIM, and the design.

        Raises:
            ValueError: if the model is none of a block for each hospital.
        """
        if not is_planted(observation.architecture, saturating=True):
            raise ValueError(f"the hospitals were handed a '{observation.architecture.name}', not an imprint model")
        public = observation.public
        self.check_public(public.images)
        block = first_block(observation.architecture, observation.model_before, self.hospitals)
        parts = split(released_gradient(observation), self.hospitals)
        result = rebuild_each(
            [
                (part.scaled(1 / scale), batch * public.records_per_unit)
                for part, scale, batch in zip(parts, self._scales, self.batches, strict=True)
            ],
            *block,
            self._of_a_block(public),
            read=read_records,
            means=Means(rank=self.rank, max_physical_batch=self.max_physical_batch, device=self.device),
            generator=generator,
        )
        details = {"bins": float(block[0].args["rows"]), "blocks": float(self.hospitals)}
        return replace(result, details={**result.details, **details})

    @property
    def _scales(self) -> list[float]:
        """By hospital, what one of its records counts in the mean, the loudest's counting 1."""
        loudness = [share / batch for share, batch in zip(self.shares, self.batches, strict=True)]
        return [value / max(loudness) for value in loudness]

    def _of_a_block(self, public: PublicSideInformation) -> PublicSideInformation:
        """What is known of the loudest hospital's block of the mean: its own records, and everybody's noise."""
        return replace(public, expected_batch=self.batches[self._scales.index(1.0)])

    @property
    def _imprint(self) -> ImprintAttack:
        return ImprintAttack(
            bins=self.bins,
            rank=self.rank,
            max_physical_batch=self.max_physical_batch,
            device=self.device,
            name=self.name,
        )
