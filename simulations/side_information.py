"""What a server knows beside a hospital's answer: the announced mechanism, how it trains, and public images."""

from __future__ import annotations

from torch import Tensor

from hbdp_fed.training import Progress, optimizer_at
from hbdp_fed.types import HospitalPlan, PublicSideInformation
from simulations.prepare import Prepared

AFTER_TRAINING = Progress(done=1, planned=1)
"""Where probes stand: the schedule's last value holds."""


def side_information(
    prepared: Prepared, plan: HospitalPlan, images: Tensor, *, progress: Progress, steps: int = 1
) -> PublicSideInformation:
    """What is known beside one hospital's answer.

    Args:
        prepared: The run; only what a server knows is read from it.
        plan: The hospital's.
        images: The public ones, float32: converted once for all hospitals.
        progress: Where in training the answer's first step lies.
        steps: How many DP-SGD steps the answer is the sum of.
    """
    local = prepared.local
    rates = [optimizer_at(local, progress.after(step)).learning_rate for step in range(1, steps)]
    return PublicSideInformation(
        images=images,
        mechanism=plan.mechanism,
        optimizer=optimizer_at(local, progress.after(0)),
        expected_batch=plan.expected_batch,
        records_per_unit=plan.expected_records / plan.expected_batch,
        loss=local.loss,
        class_weights=local.class_weights,
        later_rates=tuple(rates),
    )
