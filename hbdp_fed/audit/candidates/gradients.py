"""Clipped gradients at given weights, and what a release shows of them to one hospital's games."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbdp_fed.audit.candidates.game import CandidateGame, Seen
from hbdp_fed.audit.candidates.paths import Point
from hbdp_fed.audit.candidates.subjects import Subjects, spans
from hbdp_fed.audit.replay import SimulatedTraining
from hbdp_fed.data.contract import Records, as_floats
from hbdp_fed.dpsgd import Summer, clipped_record_gradients, flattened, make_summer, record_loss
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.training import LocalStep, views
from hbdp_fed.training.precision import precision_called
from hbdp_fed.types import DpSgdParams, Weights

_LEAST_VARIANCE = 1e-60
"""Keeps likelihoods numbers where neither noise nor rounding is left."""


class Gradients:
    """Computes clipped gradients at given weights with a model of its own."""

    def __init__(self, training: SimulatedTraining, mechanism: DpSgdParams) -> None:
        local, precision = training.local, precision_called(training.local.precision)
        self._training, self._clip = training, mechanism.max_grad_norm
        self._loss = record_loss(local.loss, local.class_weights)
        self._rows, self._views = local.max_physical_batch, local.multiplicity
        self.dtype = precision.parameters
        self.model: nn.Module = build_model(training.architecture).to(device=training.device, dtype=self.dtype).train()
        self._summer: Summer = make_summer(
            self.model,
            mechanism,
            max_physical_batch=local.max_physical_batch,
            multiplicity=local.multiplicity,
            grad_mode="hbdp",
            compute_dtype=precision.compute,
            loss=self._loss,
        )

    def move_to(self, weights: Weights) -> None:
        """Compute at these weights from now on."""
        load_weights(self.model, weights)

    def total(self, images: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
        """The sum of a batch's clipped gradients, float64 (P,)."""
        return flattened(self._summer(images, labels, counts).total, self.model)

    def each(self, images: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
        """A row a unit, (u, P), in their order. Its counts, unlike a batch's, need not be ascending."""
        if counts is None:
            return self._each(images, labels, None)
        order = counts.argsort(stable=True)
        rows = counts * self._views
        taken = spans((rows.cumsum(0) - rows)[order], rows[order])
        found = self._each(images[taken], labels[taken], counts[order])
        result = torch.empty_like(found)
        result[order.to(found.device)] = found
        return result

    def _each(self, images: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
        return clipped_record_gradients(
            self.model,
            images,
            labels,
            counts,
            max_grad_norm=self._clip,
            max_physical_batch=self._rows,
            multiplicity=self._views,
            loss=self._loss,
        )

    def guessed_views(self, subjects: Subjects, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Views of subjects' records as a hospital might draw them, and how many records each has there.

        The adversary knows neither which views the hospital drew nor, of a patient with many records, which of them.
        """
        local, taken = self._training.local, subjects.as_a_step_takes_them(stream)
        images = as_floats(taken.records.images).to(device=self._training.device, dtype=self.dtype)
        seen, labels = views(
            images,
            taken.records.labels.to(self._training.device),
            multiplicity=local.multiplicity,
            augmentation=local.augmentation,
            generator=stream,
        )
        return seen, labels, taken.counts


class Release:
    """Collects the steps of one release for one hospital's games."""

    def __init__(
        self,
        game: CandidateGame,
        pool: Records,
        records: Records,
        gradients: Gradients,
        records_per_patient: int | None = None,
    ) -> None:
        self._game, self._gradients = game, gradients
        self._pool = Subjects.of(pool, records_per_patient)
        self._targets = Subjects.of(records, records_per_patient).select(game.targets)
        self._owner = _owners(records, records_per_patient)
        self._weight = 0.0
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, step: LocalStep | Point, *, weight: float, stream: torch.Generator) -> None:
        """One step, with the gradients' model at its weights."""
        guessed = [self._gradients.guessed_views(subjects, stream) for subjects in (self._targets, self._pool)]
        place = {int(target): row for row, target in enumerate(self._game.targets)}
        counts = torch.ones_like(step.members) if step.counts is None else step.counts
        starts = counts.cumsum(0) - counts
        owners = self._owner[step.members[starts]].tolist()
        drawn = torch.tensor([at for at, owner in enumerate(owners) if owner in place], dtype=torch.int64)
        row = torch.tensor([place[owner] for owner in owners if owner in place], dtype=torch.int64)
        k = len(step.labels) // max(1, len(step.members))
        own = spans(starts[drawn] * k, counts[drawn] * k)
        taken = None if step.counts is None else counts[drawn]
        # All at once: small batches cost nearly as much as large ones.
        images, labels, sizes = zip(*guessed, (step.images[own], step.labels[own], taken), strict=True)
        found = self._gradients.each(
            torch.cat(images),
            torch.cat(labels),
            None if step.counts is None else torch.cat([size for size in sizes if size is not None]),
        )
        of_targets, of_pool, of_drawn = found.split([len(self._targets), len(self._pool), len(drawn)])
        shown = torch.zeros_like(of_targets)
        shown[row] = of_drawn
        self._weight += weight
        terms = (of_targets.mul_(weight), of_pool.mul_(weight), shown.mul_(weight))
        if self._sums is None:
            self._sums = terms
        else:
            for total, term in zip(self._sums, terms, strict=True):
                total += term

    def seen(self, left: Tensor, *, noise_variance: float, participation: tuple[Tensor, Tensor]) -> Seen:
        """The inner products with ``left`` (P,), what the release holds beyond all records that were there."""
        if self._sums is None:
            raise ValueError("a release holds at least one step")
        targets, pool, shown = self._sums
        targets, pool = targets / self._weight, pool / self._weight
        rest = left.to(targets.dtype)
        outside = (pool @ rest).double()
        return Seen(
            own=((targets @ rest).double() + (targets.double() * shown.double()).sum(dim=1)).cpu(),
            own_squared=targets.double().square().sum(dim=1).cpu(),
            pool=(outside + (shown @ pool.T).double()).cpu(),
            pool_squared=pool.double().square().sum(dim=1).cpu(),
            outside=outside.cpu(),
            noise_variance=max(noise_variance, _LEAST_VARIANCE),
            participation=participation,
        )


def _owners(records: Records, records_per_patient: int | None) -> Tensor:
    """int64 (N,), of each of a hospital's records which subject it is, or belongs to."""
    if records_per_patient is None or records.groups is None:
        return torch.arange(len(records))
    _, owner = records.groups.unique(return_inverse=True)
    return torch.as_tensor(owner)
