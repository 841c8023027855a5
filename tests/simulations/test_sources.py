"""What attacks on training rounds and on the released model are shown, and what they are held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, REALISTIC, AttackEntry
from hbdp_fed.models import read_weights
from hbdp_fed.types import ALL_HOSPITALS, Observation, Reconstruction, Weights
from simulations.run_folder import RunFolder
from tests.simulations.small_runs import BARE, run

RATE, HOSPITALS = 0.25, ("hospital-01", "hospital-02", "hospital-03")
SETTINGS = [
    *BARE, f"training.learning_rate={RATE}", "training.momentum=0", "eps=inf", "training.max_grad_norm=1",
    "training.clip_without_noise=true", "partition.sizes=power_law",
]  # fmt: skip


@dataclass(frozen=True)
class Watching:
    """Rebuilds nothing and notes what it is shown."""

    seen: list[Observation] = field(default_factory=list)
    name: str = "watching"

    def check_public(self, images: Tensor) -> None:
        """Anything will do."""

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        self.seen.append(observation)
        return Reconstruction(observation.public.images[:0].float(), torch.zeros(0))


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    attack = Watching()
    registry = cast("dict[str, Any]", ATTACKS)
    monkeypatch.setitem(registry, "watching", AttackEntry(REALISTIC, "round", lambda: attack))
    monkeypatch.setitem(
        registry, "looking", AttackEntry(REALISTIC, "model", lambda: attack, surfaces=("global_model",))
    )
    return attack


def near(first: Weights, second: Weights, *, tolerance: float = 1e-6) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name].double(), second[name].double(), rtol=0, atol=tolerance) for name in first
    )


def entries(summary: dict[str, Any]) -> dict[str, Any]:
    return {entry["surface"]: entry for entry in summary["risk"]["realistic"]["attacks"]}


def test_a_round_is_seen_as_it_was_released_on_every_surface(watching: Watching, tmp_path: Path) -> None:
    surfaces = "adversary.surfaces=[gradient,update,aggregate,global_model]"
    summary = run(tmp_path / "run", *SETTINGS, "adversary.attack=watching", surfaces)
    folder = RunFolder(tmp_path / "run")
    before = read_weights(folder.checkpoint_file(0))
    updates = {name: read_weights(folder.update_file(1, name)) for name in HOSPITALS}
    by_surface: dict[str, list[Observation]] = {}
    for one in watching.seen:
        by_surface.setdefault(one.threat_model.surface, []).append(one)
        assert near(one.model_before, before)
        assert one.released.round == 1
    assert {name: len(some) for name, some in by_surface.items()} == {
        "gradient": 3, "update": 3, "aggregate": 1, "global_model": 1,
    }  # fmt: skip
    for one in by_surface["update"]:
        assert near(one.released.delta, updates[one.released.hospital], tolerance=0)
        assert (one.public.steps, one.public.later_rates) == (2, (RATE,))
    for one in by_surface["gradient"]:
        assert one.public.steps == 1
        # A clipped sum over the expected batch, no longer than its records allow, and only a part of the round.
        length = float(torch.cat([value.flatten() for value in one.released.delta.values()]).norm())
        assert 0 < length <= RATE * one.released.num_records / one.public.expected_batch
        assert not near(one.released.delta, updates[one.released.hospital])
    records = {plan["name"]: plan["num_records"] for plan in summary["privacy"]["hospitals"]}
    whole = sum(records.values())
    mean = {
        name: torch.stack([updates[h][name].double() * records[h] / whole for h in HOSPITALS]).sum(dim=0)
        for name in before
    }
    after = read_weights(folder.checkpoint_file(1))
    [aggregate], [change] = by_surface["aggregate"], by_surface["global_model"]
    assert aggregate.released.hospital == change.released.hospital == ALL_HOSPITALS
    assert near(aggregate.released.delta, mean, tolerance=1e-12)
    assert near({name: before[name] + value for name, value in change.released.delta.items()}, after, tolerance=1e-12)
    # Everybody in the two steps is attacked where both are seen, and the first one's records where it alone is.
    counted = {surface: entry["records"] for surface, entry in entries(summary).items()}
    assert counted["update"] == counted["aggregate"] == counted["global_model"] > counted["gradient"] > 0


def test_under_secure_aggregation_the_recorded_mean_is_all_that_is_seen(watching: Watching, tmp_path: Path) -> None:
    run(tmp_path / "run", *SETTINGS, "adversary.attack=watching", "federation.secure_aggregation=true")
    [one] = watching.seen
    assert one.threat_model.surface == "aggregate"
    assert near(
        one.released.delta, read_weights(RunFolder(tmp_path / "run").update_file(1, ALL_HOSPITALS)), tolerance=0
    )


def test_rounds_that_were_asked_for_are_seen_instead_of_the_first(watching: Watching, tmp_path: Path) -> None:
    surfaces = ["adversary.surfaces=[update]", "adversary.hospitals=[hospital-02]", "adversary.rounds=[2]"]
    run(tmp_path / "run", *SETTINGS, "adversary.attack=watching", *surfaces)
    [one] = watching.seen
    assert (one.released.hospital, one.released.round) == ("hospital-02", 2)
    assert near(
        one.released.delta, read_weights(RunFolder(tmp_path / "run").update_file(2, "hospital-02")), tolerance=0
    )


def test_the_released_model_is_seen_whatever_else_is_and_held_against_all_that_was_trained_on(
    watching: Watching, tmp_path: Path
) -> None:
    summary = run(tmp_path / "run", *SETTINGS, "adversary.attack=looking", "federation.record=probes")
    folder = RunFolder(tmp_path / "run")
    [one] = watching.seen
    assert one.threat_model.surface == "global_model"
    assert near(one.model_before, read_weights(folder.checkpoint_file(0)))
    released = {name: one.model_before[name].double() + value for name, value in one.released.delta.items()}
    assert near(released, read_weights(folder.model_file), tolerance=1e-12)
    assert entries(summary)["global_model"]["records"] == 90  # all of SMALL
