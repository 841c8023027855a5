"""The learning rate over training.

A schedule is a function of progress, the share of all planned training steps that is done. The round's number and the
local step give it, so a hospital needs to remember nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hbdp_fed.errors import unknown_choice

Decay = Callable[[float], float]
"""Maps progress after the warm-up, in [0, 1], to a height that falls from 1 towards 0, or stays at 1."""


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    """Half a period of a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * progress)) / 2


def _linear(progress: float) -> float:
    return 1 - progress


SCHEDULES: Mapping[str, Decay] = {"constant": _constant, "cosine": _cosine, "linear": _linear}
"""Decays by name."""


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate changes over training.

    Attributes:
        name: A key of :data:`SCHEDULES`.
        warmup: Share of all training steps over which the learning rate rises first, in [0, 1).
        final_fraction: The share of the learning rate that a decay ends at and the warm-up starts from, in (0, 1].
            Above 0: a step of no length would cost privacy for nothing.
    """

    name: str = "constant"
    warmup: float = 0.0
    final_fraction: float = 0.01


@dataclass(frozen=True)
class Progress:
    """Where in the whole training a hospital's round begins.

    Attributes:
        done: Training steps of all rounds before, at least 0. A probe comes after all of them.
        planned: Training steps of all rounds, at least 1.
    """

    done: int
    planned: int

    def after(self, steps: int) -> float:
        """Progress after this many steps of the round, at least 0; 1 is the end of training."""
        return (self.done + steps) / self.planned


def round_progress(number: int, *, rounds: int, local_steps: int) -> Progress:
    """Progress at the beginning of round ``number`` (from 1); probes have the numbers above ``rounds``."""
    return Progress(done=(number - 1) * local_steps, planned=rounds * local_steps)


def learning_rate_factor(settings: ScheduleSettings, progress: float) -> float:
    """What the learning rate is multiplied by, in (0, 1].

    Args:
        settings: The schedule.
        progress: At least 0. From 1 on, where a malicious server may still probe, the last value holds.

    Raises:
        SettingError: if there is no such schedule.
    """
    if settings.name not in SCHEDULES:
        raise unknown_choice("training.schedule", settings.name, SCHEDULES)
    if progress < settings.warmup:
        height = progress / settings.warmup
    else:
        height = SCHEDULES[settings.name]((min(progress, 1.0) - settings.warmup) / (1 - settings.warmup))
    # Written so that a height of 1 gives exactly 1.
    return 1 - (1 - settings.final_fraction) * (1 - height)
