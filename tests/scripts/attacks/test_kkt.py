"""What the command prints is measured: records of a small net come back from its final weights, but not under noise."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hbdp_fed.adversary.final_model import KktAttack, ModelInversionAttack
from scripts.attacks import kkt

REAL = Path(os.environ.get("HBDP_DATA", "nowhere"))
SMALL = kkt.Setting(data="phantom", records=4, hidden=(20,), steps=5)


def test_records_controls_and_public_images_are_different_ones() -> None:
    for setting in (SMALL, replace(SMALL, tune=True)):
        scene = kkt.scene_of(setting)
        assert scene.labels.tolist() == [0, 0, 1, 1]
        assert [len(part) for part in (scene.images, scene.controls)] == [4, 4]
        everything = torch.cat([scene.images, scene.controls, scene.public]).flatten(start_dim=1)
        assert len(everything.unique(dim=0)) == len(everything)


def test_tuning_uses_public_images_alone() -> None:
    public = kkt.scene_of(SMALL).public.flatten(start_dim=1)
    tuned = kkt.scene_of(replace(SMALL, tune=True))
    used = torch.cat([tuned.images, tuned.controls, tuned.public]).flatten(start_dim=1)
    assert len(torch.cat([public, used]).unique(dim=0)) == len(public.unique(dim=0))


def test_the_first_layer_starts_at_the_asked_scale_and_noise_belongs_to_the_budget() -> None:
    scene = kkt.scene_of(SMALL)
    plain, small, private = (
        kkt.train(scene, replace(SMALL, scale=scale), eps).observation
        for scale, eps in ((1.0, math.inf), (1e-2, math.inf), (1.0, 8.0))
    )
    for name, value in plain.model_before.items():
        factor = 1e-2 if name == "features.0.weight" else 1.0
        torch.testing.assert_close(small.model_before[name], factor * value)
    assert plain.public.mechanism.noise_multiplier == 0 < private.public.mechanism.noise_multiplier
    assert not math.isfinite(plain.public.mechanism.max_grad_norm)


def test_a_row_has_a_cell_for_every_heading() -> None:
    attacks = [KktAttack(candidates=4, iterations=3), ModelInversionAttack(iterations=2)]
    found = list(kkt.rows(kkt.scene_of(SMALL), SMALL, [math.inf, 8.0], attacks))
    assert [(row[0], row[3]) for row in found] == [
        ("inf", "kkt"), ("inf", "model_inversion"), ("8", "kkt"), ("8", "model_inversion"),
    ]  # fmt: skip
    assert {len(row) for row in found} == {len(kkt.HEADINGS)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        "phantom",
        pytest.param(
            "pneumoniamnist",
            marks=pytest.mark.skipif(
                not (REAL / "medmnist" / "pneumoniamnist.npz").is_file(), reason="needs PneumoniaMNIST in HBDP_DATA"
            ),
        ),
    ],
)
def test_a_fifth_of_a_small_nets_records_come_back_from_its_final_weights(data: str) -> None:
    setting = kkt.Setting(data=data)
    scene = kkt.scene_of(setting)
    outcome, figures = kkt.audited(KktAttack(), kkt.train(scene, setting, math.inf), scene, setting)
    found = kkt.shares(outcome)
    assert found["enough"] >= 0.2
    # Chest X-rays are alike: nearly every public one reaches 0.4, so that only what is above the nearest one counts.
    assert found["nearer"] >= 0.2
    assert figures.control_success_rate == 0


@pytest.mark.slow
def test_nothing_of_a_record_is_left_at_a_budget_of_8() -> None:
    setting = kkt.Setting(data="phantom")
    scene = kkt.scene_of(setting)
    _, figures = kkt.audited(KktAttack(), kkt.train(scene, setting, 8.0), scene, setting)
    assert figures.success_rate == 0
