"""Clipped gradients at given weights, and what a release shows of them to one hospital's games."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbdp_fed.audit.candidates.game import CandidateGame, Seen
from hbdp_fed.audit.replay import SimulatedTraining
from hbdp_fed.data.contract import Records, as_floats
from hbdp_fed.dpsgd import Summer, clipped_record_gradients, flattened, make_summer, record_loss
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.training import views
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

    def total(self, images: Tensor, labels: Tensor) -> Tensor:
        """The sum of a batch's clipped gradients, float64 (P,)."""
        return flattened(self._summer(images, labels).total, self.model)

    def each(self, images: Tensor, labels: Tensor) -> Tensor:
        """A row a record, (b, P)."""
        return clipped_record_gradients(
            self.model,
            images,
            labels,
            max_grad_norm=self._clip,
            max_physical_batch=self._rows,
            multiplicity=self._views,
            loss=self._loss,
        )

    def guessed_views(self, records: Records, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Views of records as a hospital might draw them: the adversary does not know which it drew."""
        local = self._training.local
        images = as_floats(records.images).to(device=self._training.device, dtype=self.dtype)
        return views(
            images,
            records.labels.to(self._training.device),
            multiplicity=local.multiplicity,
            augmentation=local.augmentation,
            generator=stream,
        )


class Release:
    """Collects the steps of one release for one hospital's games."""

    def __init__(self, game: CandidateGame, pool: Records, records: Records, gradients: Gradients) -> None:
        self._game, self._gradients = game, gradients
        self._pool, self._targets = pool, records.select(game.targets)
        self._weight = 0.0
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, members: Tensor, images: Tensor, labels: Tensor, *, weight: float, stream: torch.Generator) -> None:
        """One step, with the gradients' model at its weights."""
        guessed = [self._gradients.guessed_views(records, stream) for records in (self._targets, self._pool)]
        place = {int(record): row for row, record in enumerate(self._game.targets)}
        drawn = [(at, place[int(record)]) for at, record in enumerate(members) if int(record) in place]
        k = len(labels) // max(1, len(members))
        own = torch.tensor([at * k + view for at, _ in drawn for view in range(k)], dtype=torch.int64)
        # All at once: small batches cost nearly as much as large ones.
        together = [*guessed, (images[own], labels[own])]
        found = self._gradients.each(*(torch.cat(part) for part in zip(*together, strict=True)))
        of_targets, of_pool, of_drawn = found.split([len(self._targets), len(self._pool), len(drawn)])
        shown = torch.zeros_like(of_targets)
        shown[torch.tensor([row for _, row in drawn], dtype=torch.int64)] = of_drawn
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
