"""What attacks on the final model read, and what they refuse before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model
from hbdp_fed.types import ALL_HOSPITALS, Observation, Weights

LOSS = "cross_entropy"
"""What the attacks know the gradient of: one of several classes an image."""


@dataclass(frozen=True)
class FinalModel:
    """The weights before and after training, float32 by parameter name.

    Attributes:
        before: As they were handed out first.
        change: What training added, the released weights minus those.
    """

    before: Weights
    change: Weights

    def at(self, part: float) -> dict[str, Tensor]:
        """The weights this part of the way from the first to the last: 1 for those that were released."""
        return {name: (value + part * self.change[name]).detach() for name, value in self.before.items()}


def final_model(observation: Observation) -> FinalModel:
    """The released weights of an observation of the final global model.

    Raises:
        ValueError: if the adversary does not see the global model, or weights are missing.
    """
    if observation.threat_model.surface != "global_model" or observation.released.hospital != ALL_HOSPITALS:
        raise ValueError("the attack is on the final global model: it needs the surface global_model")
    before, change = observation.model_before, observation.released.delta
    if before.keys() != change.keys():
        raise ValueError(f"weights on one side only: {', '.join(sorted(before.keys() ^ change.keys()))}")
    # The sum in float64 is what was released; its parts are then exact enough in float32, which is what is searched in.
    return FinalModel(
        before={name: value.float() for name, value in before.items()},
        change={name: value.float() for name, value in change.items()},
    )


def classes_of(observation: Observation, *, attack: str) -> int:
    """How many classes the released model tells apart, one an image.

    Raises:
        SettingError: if the task is another one, or released weights are not finite.
    """
    if observation.public.loss != LOSS:
        raise SettingError(
            "adversary.attack", f"{attack} works where training.loss={LOSS}, here it is {observation.public.loss}"
        )
    for name, value in observation.released.delta.items():
        if not bool(value.isfinite().all()):
            raise SettingError("adversary.attack", f"{attack} needs finite weights, those of {name} are not")
    model = build_model(observation.architecture).eval()
    with torch.no_grad():
        outputs = model(observation.public.images[:1].float()).shape
    if len(outputs) != 2:
        raise SettingError("adversary.attack", f"{attack} needs one answer an image, the model gives {list(outputs)}")
    return int(outputs[1])


def check_numbers(attack: str, values: dict[str, tuple[float, float]]) -> None:
    """Whether settings are finite and at least what they have to be.

    Args:
        attack: Whose settings.
        values: By name, the value and the least that is accepted.

    Raises:
        SettingError: naming the first that is not.
    """
    for name, (value, least) in values.items():
        if not least <= value < math.inf:
            raise SettingError(f"adversary.{attack}.{name}", f"must be a number of at least {least:g}, got {value:g}")
