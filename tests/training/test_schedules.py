"""Schedules against PyTorch's own schedulers, and what happens at both ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from hbdp_fed.errors import SettingError
from hbdp_fed.training import SCHEDULES, ScheduleSettings, learning_rate_factor, round_progress

TOTAL, FINAL = 40, 0.05


def torchs_factors(name: str, warmup_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rest = TOTAL - warmup_steps
    decay = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=rest, eta_min=FINAL),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=FINAL, total_iters=rest),
    }[name]()
    scheduler: lr_scheduler.LRScheduler = decay
    if warmup_steps:
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=FINAL, total_iters=warmup_steps)
        scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, decay], milestones=[warmup_steps])
    found = []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("warmup_steps", [0, 8])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_factors_are_those_of_torchs_schedulers(name: str, warmup_steps: int) -> None:
    settings = ScheduleSettings(name, warmup=warmup_steps / TOTAL, final_fraction=FINAL)
    found = [learning_rate_factor(settings, step / TOTAL) for step in range(TOTAL)]
    assert found == pytest.approx(torchs_factors(name, warmup_steps), rel=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_factor_is_never_zero_and_never_above_one(name: str, warmup: float) -> None:
    settings = ScheduleSettings(name, warmup=warmup)
    factors = [learning_rate_factor(settings, step / 100) for step in range(200)]
    assert all(factor + 1e-15 >= 0.01 and factor <= 1 for factor in factors)


@pytest.mark.parametrize(("name", "last"), [("constant", 1.0), ("cosine", FINAL), ("linear", FINAL)])
def test_after_the_end_the_last_value_holds(name: str, last: float) -> None:
    settings = ScheduleSettings(name, warmup=0.25, final_fraction=FINAL)
    assert [learning_rate_factor(settings, progress) for progress in (1.0, 1.1, 7.0)] == pytest.approx([last] * 3)


def test_a_constant_schedule_without_warm_up_changes_no_bit() -> None:
    for fraction in (0.01, 0.07, 1 / 3, 1.0):
        settings = ScheduleSettings("constant", final_fraction=fraction)
        assert all(learning_rate_factor(settings, step / 7) == 1.0 for step in range(9))


def test_half_way_by_hand() -> None:
    assert learning_rate_factor(ScheduleSettings("cosine", final_fraction=0.2), 0.5) == pytest.approx(0.6)
    assert learning_rate_factor(ScheduleSettings("linear", final_fraction=0.2), 0.25) == pytest.approx(0.8)
    assert learning_rate_factor(ScheduleSettings("linear", warmup=0.5, final_fraction=0.2), 0.25) == pytest.approx(0.6)


def test_rounds_follow_each_other_without_a_gap_and_probes_come_after_the_end() -> None:
    progress = [
        round_progress(number, rounds=3, local_steps=4).after(step) for number in (1, 2, 3) for step in range(4)
    ]
    assert progress == pytest.approx([step / 12 for step in range(12)])
    assert round_progress(4, rounds=3, local_steps=4).after(0) == 1.0
    assert round_progress(5, rounds=3, local_steps=4).after(0) > 1.0


def test_an_unknown_schedule_names_the_setting() -> None:
    with pytest.raises(SettingError, match=r"training\.schedule: 'step' is not known; .*: constant, cosine, linear"):
        learning_rate_factor(ScheduleSettings("step"), 0.0)
    assert math.isclose(ScheduleSettings().final_fraction, 0.01)
