"""The trap weights attack: craft a malicious model before the probe, rebuild images from the answer after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.campaign import find_and_craft, is_planted, rebuild_from
from hbdp_fed.adversary.planted.checks import check_planting, check_settings
from hbdp_fed.adversary.planted.crafting import loudnesses
from hbdp_fed.adversary.planted.gradient import active_rows
from hbdp_fed.adversary.planted.rehearsal import Means
from hbdp_fed.adversary.trap_weights.crafting import TrapDesign, craft_model
from hbdp_fed.adversary.trap_weights.reading import read_records
from hbdp_fed.types import ModelSpec, Observation, PublicSideInformation, Reconstruction, Weights

_ROWS_PER_RECORD = (16, 8, 4)
"""Beside all rows, layouts with so many rows for each record that is expected are tried: loud rows, more collisions."""

_ROWS_OF_RECORD = (6.0, 2.0)
"""Where there are so few rows that a record would activate fewer than so many, layouts in which it does are tried."""

_MOST_ACTIVE = 0.25
"""No row shall be active for a larger share of the records."""


@dataclass(frozen=True)
class TrapWeightsAttack:
    """A malicious server's trap weights (Boenisch et al. 2021, arXiv 2112.02918), built to survive clipping and noise.

    The attack is for one DP-SGD step, by whichever optimiser the hospitals announced. Rows of random weights on the
    pixels are active for few records. A record's clipped gradient is divided over the rows that it activates, and a row
    may hold several records, so the attack does more than to read a row: it finds out which records each row holds, and
    puts each together from all of its rows. The planted layer takes nearly all of the clipped norm, images are coded
    against the public mean and whitened, and the best linear denoiser that public images allow comes last.

    Attributes:
        bins: Rows of the planted layer, at most: the search may do with fewer. The rows times the pixels are its size.
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
    name: str = "trap_weights"

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
        layouts = self._layouts(public.expected_records)
        rows, activation = layouts[0]
        start = TrapDesign(
            rows=rows,
            activation=activation,
            # How to lay out the rows is asked first, and with nothing else in the way.
            loudness=loud[-1],
            whitening=self.whitenings[0],
            max_logit_change=self.max_logit_change,
            seed=int(torch.randint(2**62, (), generator=generator)),
        )
        settings: Sequence[Callable[[TrapDesign], Sequence[TrapDesign]]] = (
            lambda design: [replace(design, rows=rows, activation=activation) for rows, activation in layouts],
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
            An image for each record that was found. Its details give the share of the gradient norm that the planted
            layer takes of stand-ins, the rehearsal's SSIM, and the design.

        Raises:
            ValueError: if the hospital was not handed a model with trap weights.
        """
        architecture, public = observation.architecture, observation.public
        if not is_planted(architecture, saturating=False):
            raise ValueError(f"the hospital was handed a '{architecture.name}', not a model with trap weights")
        self.check_public(public.images)
        result = rebuild_from(observation, read=read_records, means=self._means, generator=generator)
        activity = active_rows(architecture.args, observation.model_before, public.images).double().mean()
        details = {"rows": float(architecture.args["rows"]), "activation": float(activity)}
        return replace(result, details={**result.details, **details})

    def _layouts(self, expected_records: float) -> list[tuple[int, float]]:
        """How many rows, and with which probability each is active: what to try."""
        # A row holds exactly one record most often if it holds one on average.
        alone = min(1 / expected_records, _MOST_ACTIVE)
        fewer = [max(2, math.ceil(count * expected_records)) for count in _ROWS_PER_RECORD]
        crowded = [min(count / self.bins, _MOST_ACTIVE) for count in _ROWS_OF_RECORD]
        return [
            (self.bins, alone),
            *((rows, alone) for rows in fewer if rows < self.bins),
            *((self.bins, activation) for activation in crowded if activation > alone),
        ]

    @property
    def _means(self) -> Means:
        return Means(rank=self.rank, max_physical_batch=self.max_physical_batch, device=self.device)
