"""The attack: what an ordinary training round released, to the images behind it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.gradient_inversion.checks import (
    check_choices,
    check_counts,
    check_numbers,
)
from hbdp_fed.adversary.gradient_inversion.coordinates import Coordinates, fit_coordinates
from hbdp_fed.adversary.gradient_inversion.descent import DESCENTS, Pace
from hbdp_fed.adversary.gradient_inversion.labels import recover_labels
from hbdp_fed.adversary.gradient_inversion.objectives import OBJECTIVES
from hbdp_fed.adversary.gradient_inversion.rehearsal import best_plan
from hbdp_fed.adversary.gradient_inversion.search import STARTS, Plan, invert
from hbdp_fed.adversary.gradient_inversion.victim import cast_dummies, imagine, released_target
from hbdp_fed.adversary.public_images import WINDOW, check_public_images
from hbdp_fed.types import Observation, Reconstruction

logger = logging.getLogger(__name__)

_MIN_IMAGES = 4
"""Fewer public images than this have no mean to speak of."""


@dataclass(frozen=True)
class GradientInversionAttack:
    """An honest-but-curious server's gradient inversion (Geiping et al. 2020, arXiv 2003.14053).

    Dummy records are changed until a hospital with them would have released what was seen: one clipped step, or several
    local steps of SGD, unrolled. Four things go beyond the paper. Labels are read from the last layer. The net's
    corners are rounded at first and sharpened stage by stage. The search goes along what distinguishes public images.
    How much smoothness to ask of the images is tried out on public images under the hospital's own mechanism.

    There are as many dummies as records are expected, up to ``most_records``. Where a step holds more, each dummy
    stands for several records and what comes out are mixtures. Nor does the server know how many records a Poisson
    batch really held: too few or too many dummies give mixtures, too.

    Attributes:
        objective: ``cosine`` or ``euclidean``.
        tv_weights: Weights of the total variation to choose from by rehearsal; a single one is taken as it is.
        optimizer: ``lbfgs``, ``adam`` or ``signed_adam`` (the paper's).
        iterations: Of each stage.
        learning_rate: Adam's first step, in grey values.
        widths: How far the net's corners are rounded in each stage, in units of its activations; 0 leaves the net as
            it is, so that ``(0.0,)`` is the paper's search.
        uncorrected: How many of these stages take what was seen as it is. The later ones add what the rounding of the
            corners changes at the images found so far.
        whitening: Power of the public images' standard deviations in the coordinates that are searched: 0 for pixels.
        restarts: Starts, of which the best by the objective is kept.
        start: ``mean`` (the mean public image), ``public`` (public images at random) or ``noise``.
        box: Whether images are held in [0, 1] all the way, and not only put there at the end.
        most_records: Dummy records of all steps together.
        rehearsals: Releases of public images on which each of ``tv_weights`` is tried; 0 takes the first.
        device: Where to compute, as PyTorch names it.
        name: What reports call the attack.
    """

    objective: str = "cosine"
    tv_weights: tuple[float, ...] = (1e-6, 1e-3, 1e-1)
    optimizer: str = "lbfgs"
    iterations: int = 150
    learning_rate: float = 0.02
    widths: tuple[float, ...] = (0.5, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02)
    uncorrected: int = 2
    whitening: float = 0.5
    restarts: int = 1
    start: str = "mean"
    box: bool = True
    most_records: int = 16
    rehearsals: int = 1
    device: str = "cpu"
    name: str = "gradient_inversion"

    def __post_init__(self) -> None:
        check_choices(
            objective=(self.objective, OBJECTIVES), optimizer=(self.optimizer, DESCENTS), start=(self.start, STARTS)
        )
        check_counts(at_least=1, iterations=self.iterations, restarts=self.restarts, most_records=self.most_records)
        check_counts(at_least=0, rehearsals=self.rehearsals, uncorrected=self.uncorrected)
        check_numbers(tv_weights=self.tv_weights, widths=self.widths, learning_rate=(self.learning_rate,))
        check_numbers(whitening=(self.whitening,))

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial), which is known before any training.

        Raises:
            SettingError: if there are too few, they are too small, or they are neither images nor volumes.
        """
        check_public_images(images, attack=self.name, least=_MIN_IMAGES, smallest_side=WINDOW)

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild the records behind one release.

        Args:
            observation: Of one step by any optimiser, or of several steps of SGD.
            generator: A CPU generator.

        Returns:
            The dummies of the best start; none where nothing at all was released. All have one score, the negative
            distance to what was seen. The details give the iterations, the distance, the weight of the total variation
            and the SSIM that it had in rehearsal (if there was one), the starts and the number of dummies.

        Raises:
            SettingError: if the public images do not suffice, or the loss is not of one label a record.
            ValueError: if the release is of several steps of another optimiser than SGD.
        """
        public = observation.public
        self.check_public(public.images)
        cast = cast_dummies(public, most_records=self.most_records)
        victim = imagine(observation, cast=cast, device=self.device)
        target = released_target(observation, victim)
        if not any(bool(value.any()) for value in target):
            return Reconstruction(images=public.images[:0].float(), scores=torch.zeros(0))
        coordinates = fit_coordinates(public.images.to(self.device), power=self.whitening)
        plan, rehearsed = best_plan(
            [self._plan(tv_weight, coordinates) for tv_weight in self.tv_weights],
            victim,
            cast,
            public.images,
            batches=self.rehearsals,
            generator=generator,
        )
        labels = recover_labels(target, victim, cast, public.images)
        logger.info("%d dummy records with the labels %s", cast.records, labels.tolist())
        found = invert(target, victim, cast, labels, public.images, plan, generator)
        return Reconstruction(
            images=found.images.float().clamp(0.0, 1.0),
            scores=torch.full((cast.records,), -found.distance),
            details={
                "iterations": float(self.iterations * len(self.widths)),
                "objective": found.distance,
                "tv_weight": plan.tv_weight,
                "restarts": float(self.restarts),
                "records": float(cast.records),
                **({} if rehearsed is None else {"rehearsal_ssim": rehearsed}),
            },
        )

    def _plan(self, tv_weight: float, coordinates: Coordinates) -> Plan:
        return Plan(
            objective=self.objective,
            tv_weight=tv_weight,
            optimizer=self.optimizer,
            pace=Pace(self.iterations, self.learning_rate),
            box=self.box,
            widths=self.widths,
            uncorrected=self.uncorrected,
            coordinates=coordinates,
            start=self.start,
            restarts=self.restarts,
        )
