"""Hospitals of a simulation that examine the model they receive, and refuse one that was made to trap records.

What they look at is public: reference images that all of them hold, never a record of their own. So a refusal tells
nobody anything about a patient. Real hospitals do the same with images of their own (see
:mod:`hbdp_fed.federation.site_screening`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hbdp_fed.data.contract import as_floats
from hbdp_fed.data.shards import read_shard
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.models import read_weights
from hbdp_fed.screening import References, Screen, Training, structural_problems
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import HospitalPlan, ModelSpec


@dataclass(frozen=True)
class Screening:
    """What hospitals examine models by.

    Attributes:
        references: The file of the reference images with labels (see :mod:`hbdp_fed.data.shards`).
        initial: The file of the initial weights that were agreed to.
        architecture: What was agreed to.
        seed: Of a hospital's calibration; the server does not know it.
    """

    references: str
    initial: str
    architecture: ModelSpec
    seed: int


def made_to_trap(
    request: TrainRequest, screening: Screening, plan: HospitalPlan, *, local: LocalSettings, local_steps: int
) -> str | None:
    """What is wrong with the request's model; None if nothing is found.

    The ranges of honest models are found when the first model is to be judged by them: one of another architecture
    never is.

    Args:
        request: What the server sent.
        screening: What it is examined by.
        plan: The hospital's.
        local: How it trains.
        local_steps: Steps of a training round.
    """
    references, agreed = references_of(screening.references, local.loss), screening.architecture
    problems: Sequence[str] = list(
        structural_problems(request.architecture, request.weights, references.images, agreed=agreed)
    )
    if not problems:
        training = training_of(plan, local, local_steps)
        screen = _screen(
            screening.references, screening.initial, agreed.to_json(), training, local.loss, screening.seed
        )
        problems = screen.examine(request.architecture, request.weights).reasons
    return "; ".join(problems) or None


def training_of(plan: HospitalPlan, local: LocalSettings, local_steps: int) -> Training:
    """What a hospital knows of its training beforehand."""
    return Training(plan.mechanism, local.optimizer, plan.expected_batch, local_steps)


@lru_cache(maxsize=4)
def references_of(file: str, loss: str) -> References:
    """The reference images in a file; a process that plays several hospitals reads them once."""
    records = read_shard(Path(file))
    return References(as_floats(records.images), records.labels, loss)


@lru_cache(maxsize=64)
def _screen(references: str, initial: str, agreed: str, training: Training, loss: str, seed: int) -> Screen:
    """The check of a hospital with this mechanism, calibrated once a process."""
    architecture = ModelSpec.from_json(agreed)
    return Screen.calibrated(
        architecture,
        training,
        references_of(references, loss),
        seed=seed,
        agreed=architecture,
        initial=[read_weights(Path(initial))],
    )
