"""How common something is among a hospital's patients, from its updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hbdp_fed.adversary.property_inference.features import fit_features
from hbdp_fed.adversary.property_inference.shadows import ShadowTraining, draw_population
from hbdp_fed.errors import SettingError
from hbdp_fed.types import PopulationObservation, Weights

SHARES = (0.2, 0.8)
"""The two populations that are told apart: one in five has the property, or four in five."""

FEWEST = 8
"""Shadow hospitals: two of either share without noise, and two with it."""


@dataclass(frozen=True)
class PropertyInference:
    """Tells which of two shares of its patients has a property (Ateniese et al. 2015, arXiv 1306.4447).

    The adversary draws populations of either share from its labelled public images, trains each as the hospital would,
    from the same weights and with the announced mechanism, and fits a classifier to what comes out (for updates of
    federated learning: Melis et al. 2019, arXiv 1805.04049). Half of these shadow hospitals train without noise, which
    shows in which directions populations differ; the other half with it, which shows how far those can be trusted.

    Attributes:
        shadows: How many shadow hospitals, at least 8.
        name: What reports call the attack.
    """

    shadows: int = 64
    name: str = "property_inference"

    def __post_init__(self) -> None:
        if self.shadows < FEWEST:
            raise SettingError("adversary.shadows", f"must be at least {FEWEST}, got {self.shadows}")

    def tell(self, observation: PopulationObservation, generator: torch.Generator) -> Tensor:
        """A score for each answer, float64 (R,): the larger, the likelier the large share; above 0 it is likelier.

        Raises:
            SettingError: if no public record has the property, or all have it.
        """
        if not bool(observation.has_property.any()) or bool(observation.has_property.all()):
            raise SettingError("adversary.property", "must be one that some public records have, and some have not")
        size = observation.released[0].num_records
        each = self.shadows // 4
        clean = {share: _shadows(observation, share, size, each, generator, noisy=False) for share in SHARES}
        features = fit_features(clean[SHARES[1]], clean[SHARES[0]])
        noisy = self.shadows // 2 - each
        rows, marks = [], []
        for share in SHARES:
            for update in _shadows(observation, share, size, noisy, generator, noisy=True):
                rows.append(features(update).numpy())
                marks.append(share == SHARES[1])
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ITERATIONS))
        classifier.fit(np.stack(rows), np.array(marks))
        seen = np.stack([features(update.delta).numpy() for update in observation.released])
        return torch.from_numpy(classifier.decision_function(seen))


_INVERSE_PENALTY = 0.1
"""There are about as many features as shadows, and most of them say the same."""

_ITERATIONS = 1000


def _shadows(
    observation: PopulationObservation,
    share: float,
    size: int,
    count: int,
    generator: torch.Generator,
    *,
    noisy: bool,
) -> list[Weights]:
    """Updates of so many populations of the adversary's own."""
    training = ShadowTraining(observation)
    updates = []
    for _ in range(count):
        rows = draw_population(observation.has_property, size=size, share=share, stream=generator)
        images, labels = observation.public.images[rows], observation.labels[rows]
        updates.append(training.update(images, labels, generator, noisy=noisy))
    return updates
