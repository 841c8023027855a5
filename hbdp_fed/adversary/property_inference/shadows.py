"""Shadow hospitals: the announced training, run by the adversary on populations of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd import MovingWeights, dp_sgd_gradient, make_summer, poisson_batches, record_loss, seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import PopulationObservation, Weights

_PHYSICAL_BATCH = 256


@dataclass(frozen=True)
class ShadowTraining:
    """What a hospital does with the weights that it is handed, for any records.

    Augmentation, a proximal term and lower precision, which hospitals may have agreed on as well, are left out.

    Attributes:
        observation: What is known of it; the answers themselves are not read.
    """

    observation: PopulationObservation

    def update(self, images: Tensor, labels: Tensor, stream: torch.Generator, *, noisy: bool) -> Weights:
        """What a hospital with these records would have shown (see :class:`PopulationObservation`, ``released``).

        Args:
            images: float32 (n, C, *spatial), all of its records.
            labels: Of these.
            stream: For batches and noise.
            noisy: Whether to add the announced noise: without it, an update shows what there is to find.

        Returns:
            By parameter name, float64.
        """
        public, start = self.observation.public, self.observation.model_before
        mechanism = public.mechanism if noisy else replace(public.mechanism, noise_multiplier=0.0)
        load_weights(self._model, start)
        moving = MovingWeights.of(self._model)
        optimizer = build_optimizer(list(moving.masters.values()), public.optimizer)
        summer = make_summer(
            self._model,
            mechanism,
            max_physical_batch=_PHYSICAL_BATCH,
            loss=record_loss(public.loss, public.class_weights),
        )
        mean = {name: torch.zeros_like(value) for name, value in moving.masters.items()}
        batches = poisson_batches(
            num_records=len(images), sample_rate=mechanism.sample_rate, steps=public.steps, generator=stream
        )
        rates = (public.optimizer.learning_rate, *public.later_rates)
        for members, rate in zip(batches, rates, strict=True):
            step = dp_sgd_gradient(
                summer,
                images[members],
                labels[members],
                mechanism=mechanism,
                expected_batch=public.expected_batch,
                noise=seeded_noise(stream),
            )
            for name, gradient in step.gradient.items():
                mean[name] -= gradient / public.steps
            moving.take(step.gradient, optimizer, learning_rate=rate)
        return mean if self.observation.threat_model.surface == "gradient" else moving.delta()

    @cached_property
    def _model(self) -> nn.Module:
        return build_model(self.observation.architecture).train()


def draw_population(has_property: Tensor, *, size: int, share: float, stream: torch.Generator) -> Tensor:
    """Rows of a population of which a share has a property: different records, as far as there are enough.

    Args:
        has_property: bool (P,), of which each kind is there at least once where it is wanted.
        size: n, at least 1.
        share: In [0, 1].
        stream: A CPU generator.

    Returns:
        int64 (n,).

    Raises:
        ValueError: if a kind that is wanted does not exist.
    """
    wanted = round(share * size)
    parts = []
    for kind, count in ((has_property, wanted), (~has_property, size - wanted)):
        rows = kind.nonzero().flatten()
        if count and not len(rows):
            raise ValueError(f"a population with a share of {share:g} needs records of either kind")
        if count <= len(rows):
            parts.append(rows[torch.randperm(len(rows), generator=stream)[:count]])
        else:
            parts.append(rows[torch.randint(len(rows), (count,), generator=stream)])
    return torch.cat(parts)
