"""The measurements of the check: small federations, and what they are counted by. Slow: the acceptance, reduced."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import beta

from hbdp_fed.adversary.planted.gradient import active_rows
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.screening import Screen
from scripts.attacks.disguises import DESIGNS, ROWS, Design, agreed_architecture, disguised, reconstructed
from scripts.attacks.screened_worlds import ARCHITECTURES, SEGMENTING, World, honest_worlds
from scripts.attacks.screening import crafted, honest_verdicts, interval, probed_worlds, side_information
from scripts.attacks.screening_evasion import BATCH, batches_of, hospital_sum, similarities

ATTACKS = ("imprint", "trap_weights", "loki")
SMALL = World("phantom", "cnn", 1e9, rounds=1)


def test_every_architecture_is_trained_at_every_budget_on_the_data_that_it_takes() -> None:
    worlds = list(honest_worlds(rounds=20, seeds=2))
    assert {world.model for world in worlds} == set(ARCHITECTURES)
    assert {world.eps for world in worlds} == {8.0, 1e9, math.inf}
    assert {world.dataset for world in worlds if world.model in SEGMENTING} == {"phantom"}
    assert {world.dataset for world in worlds if world.model not in SEGMENTING} == {"phantom", "pneumoniamnist"}
    # Every training shows its fresh weights and what each round made of them.
    assert sum(world.rounds + 1 for world in worlds) >= 1000


def test_probes_count_in_the_plan() -> None:
    assert SMALL.plan.mechanism.steps == 4 + 1
    assert SMALL.training.mechanism == SMALL.plan.mechanism


def test_hospitals_hold_different_records_and_references_are_none_of_them() -> None:
    first, second = (images for images, _ in SMALL.hospitals())
    known = {image.numpy().tobytes() for image in first}
    assert not known & {image.numpy().tobytes() for image in second}
    assert not known & {image.numpy().tobytes() for image in SMALL.references.images}


@pytest.mark.parametrize(("hits", "trials"), [(0, 1008), (3, 36), (36, 36)])
def test_intervals_are_exact(hits: int, trials: int) -> None:
    # Clopper and Pearson 1934, by the quantiles of the beta distribution.
    low = beta.ppf(0.025, hits, trials - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    assert interval(hits, trials) == f"{hits}/{trials} = {hits / trials:.4f} [{low:.4f}, {high:.4f}]"


def test_honest_training_is_not_flagged() -> None:
    verdicts = honest_verdicts(SMALL)
    assert len(verdicts) == 2
    assert not any(verdict.flagged for verdict in verdicts)


@pytest.mark.parametrize("attack", ATTACKS)
def test_probe_is_flagged_whatever_was_agreed_to(attack: str) -> None:
    probe = crafted(attack, SMALL, bins=32)
    verdict = probe.screen(agreed=probe.architecture).examine(probe.architecture, probe.weights)
    assert "shared_rows" in verdict.measures


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return dict(list(SMALL.global_models())[-1])


def test_ladder_rows_are_active_above_their_cuts(base: dict[str, torch.Tensor]) -> None:
    images = SMALL.public_images
    design = Design("ladder", gain=1.0, measuring=0.2, component=4)
    weights = disguised(SMALL, base, images, design, torch.Generator().manual_seed(1))
    active = active_rows(agreed_architecture(SMALL).args, weights, images).float()
    # A row is active for those above its quantile: evenly fewer from row to row.
    assert torch.allclose(active.mean(dim=0), 1 - torch.arange(ROWS) / ROWS, atol=0.02)


def test_disguised_layers_give_records_away_where_there_is_no_noise(base: dict[str, torch.Tensor]) -> None:
    world = replace(SMALL, eps=math.inf)
    public, architecture = side_information(world), agreed_architecture(world)
    _, images, labels = next(batches_of(*world.hospitals()[0]))
    for design in (Design("ladder", 1.0, measuring=0.2, component=4), Design("traps", 1.0, activation=0.2)):
        weights = disguised(world, base, public.images, design, torch.Generator().manual_seed(1))
        answer = hospital_sum(architecture, weights, images, labels, public.mechanism, seed=1)
        found = similarities(reconstructed(world, weights, answer, design, public), images)
        assert len(found) == BATCH
        assert float(found.mean()) > 0.5, design.family


def test_every_design_has_the_shapes_that_were_agreed_to(base: dict[str, torch.Tensor]) -> None:
    model = build_model(agreed_architecture(SMALL))
    for designs in DESIGNS.values():
        load_weights(model, disguised(SMALL, base, SMALL.public_images, designs[0], torch.Generator().manual_seed(1)))


@pytest.mark.slow
def test_false_alarms_are_at_most_one_in_a_hundred() -> None:
    worlds = [world for world in honest_worlds(rounds=8, seeds=1) if _there(world)]
    flags = [verdict.flagged for world in worlds for verdict in honest_verdicts(world)]
    assert len(flags) > 100
    assert sum(flags) <= 0.01 * len(flags)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_at_least_95_percent_of_probes_are_caught_without_the_structure(attack: str) -> None:
    verdicts = []
    for world in probed_worlds(1):
        if _there(world):
            probe = crafted(attack, world, bins=128)
            screen: Screen = probe.screen(agreed=probe.architecture)
            verdicts.append(screen.examine(probe.architecture, probe.weights))
    assert sum("shared_rows" in verdict.measures for verdict in verdicts) >= 0.95 * len(verdicts)
    assert all("structure" not in verdict.measures for verdict in verdicts)


def _there(world: World) -> bool:
    """Whether the data set is on this machine."""
    folder = os.environ.get("HBDP_DATA")
    return world.dataset == "phantom" or (
        folder is not None and (Path(folder) / "medmnist" / "pneumoniamnist.npz").is_file()
    )
