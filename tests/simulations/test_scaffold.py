"""Runs with corrected local steps: gone on with, attacked from what they recorded, and checked before they start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hbdp_fed.audit.replay import replay_round
from hbdp_fed.models import read_weights
from simulations.assault import Assault
from simulations.compose import compose_run, typed
from simulations.games import games_tasks
from simulations.old_run import composed_of
from simulations.prepare import prepare
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from simulations.run_folder import RunFolder

SMALL = [
    "engine=inprocess", "clients=3", "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=4", "training.local_steps=2", "training.expected_batch=8",
    "evaluation.bootstrap=0", "training.correction=scaffold", "training.schedule=cosine", "partition.sizes=power_law",
]  # fmt: skip
FAULTS = [
    "federation.on_failure=tolerate",
    "federation.faults=[{hospital: hospital-02, round: 2, kind: empty}, "
    "{hospital: hospital-01, round: 3, kind: empty}]",
]
GAMES = ["adversary.attack=[candidate_matching]", "adversary.targets=3", "adversary.candidates=4"]


class PowerCut(BaseException):
    """Nobody catches this, as nobody survives a power cut."""


def summary(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return value


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two answers that were lost, and the rounds without any attacked on both surfaces."""
    folder = tmp_path_factory.mktemp("scaffold") / "run"
    arguments = [*SMALL, *FAULTS, *GAMES, "adversary.surfaces=[gradient,update]", f"run_dir={folder}"]
    assert main(arguments) == OK
    return folder


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After round 2, in which an answer was lost: the hospital keeps two control variates then."""
    folder, calls = tmp_path / "run", 0
    original = RunFolder.write_checkpoint

    def counted(self: RunFolder, *arguments: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise PowerCut
        original(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_checkpoint", counted)
        with pytest.raises(PowerCut):
            main([*SMALL, *FAULTS, "adversary.attack=none", f"run_dir={folder}"])
    assert main([f"resume={folder}"]) == OK
    assert summary(folder)["model_sha256"] == summary(undisturbed)["model_sha256"]
    assert summary(folder)["participation"] == summary(undisturbed)["participation"]


def test_every_hospitals_rounds_can_be_taken_again_to_the_last_bit(undisturbed: Path) -> None:
    folder = RunFolder(undisturbed)
    prepared = prepare(typed(composed_of(folder, key="run", others=[])))
    assault = Assault(prepared, folder, ("candidate_matching",), lambda _: None)
    [task, *_] = games_tasks(
        prepared, assault.training, folder, prepared.config.adversary, "gradient", {"hospital-01": [1]}
    )
    assert task.corrected is not None
    names = [plan.name for plan in prepared.plans]
    added = task.corrected.added(names, range(1, 5))
    training = replace(assault.training, added=added)
    for number in range(1, 5):
        before = read_weights(undisturbed / "checkpoints" / f"round-{number - 1:04d}.safetensors")
        for place, name in enumerate(names):
            if (name, number) in folder.failed():
                continue
            sent = read_weights(undisturbed / "observations" / f"round-{number:04d}" / f"{name}.safetensors")
            again = replay_round(training, place, number, before, watch=lambda step: None).delta
            assert all(torch.equal(again[key], value) for key, value in sent.items())


def test_games_are_played_on_rounds_that_everybody_answered(undisturbed: Path) -> None:
    found = {entry["surface"]: entry for entry in summary(undisturbed)["risk"]["worst_case"]["attacks"]}
    assert set(found) == {"gradient", "update"}
    assert all(entry["records"] == 3 for entry in found.values())


def test_surfaces_that_show_no_single_update_are_left_out_with_a_word() -> None:
    attacks = prepare(typed(compose_run([*SMALL, *GAMES[1:], "adversary.surfaces=[aggregate]"]))).attacks
    assert attacks.attacks == ("imprint", "trap_weights", "loki", "linear_probe", "linear_reconstruction")
    assert [line.split(":")[0] for line in attacks.left_out] == [
        "candidate_matching",
        "membership",
        "property_inference",
    ]
    assert "adversary.surfaces must be gradient or update" in attacks.left_out[0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.correction=feddyn", "training.correction: 'feddyn' is not known; choose one of: none, scaffold"),
        ("training.optimizer=nadam", "training.optimizer: must be sgd with training.correction=scaffold"),
        ("training.weight_decay=0.1", "training.weight_decay: must be 0 with training.correction=scaffold"),
        ("training.proximal=0.1", "training.proximal: must be 0 with training.correction=scaffold"),
        ("federation.aggregation=median", "federation.aggregation: must be mean with training.correction=scaffold"),
        ("adversary.surfaces=[global_model]", "adversary.surfaces: must be gradient or update for candidate_matching"),
    ],
)
def test_what_cannot_be_corrected_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    assert main([*SMALL, *GAMES, setting, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
