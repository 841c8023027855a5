"""The main job when it cannot go on: one line, the right exit code, and nothing lost that was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hbdp_fed.models import MODELS
from simulations.run import main
from simulations.sweep.__main__ import main as sweep
from tests.simulations.small_runs import BARE, SMALL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clinets=5"], "clinets: there is no such setting; did you mean 'clients'?"),
        (["eps=-1"], "eps: must be a positive number or inf"),
        (["eps=0"], "eps: must be a positive number or inf"),
        (["eps=nan"], "eps: must be a positive number or inf"),
        (["eps=abc"], "eps: Value 'abc' of type 'str' is not a number"),
        (["eps=0.01"], "never falls below"),
        (["clients=0"], "clients: must be at least 1, got 0"),
        (["report=pdf"], "report: 'pdf' is not known; choose one of: both, html, md"),
        (["smallest_count=0"], "smallest_count: must be at least 1, got 0"),
        (["clients=91"], "clients:"),
        (["data=nosuch"], "data: 'nosuch' is not known; choose one of: breastmnist, chest_xray, dicom, ham10000, ima"),
        (["delta=0.5"], "delta: 0.5 must be below 1/records"),
        (["delta=2"], "delta: must lie strictly between 0 and 1"),
        (["device=tpu"], "device: 'tpu' is not known"),
        (["seed=-1"], "seed: must be at least 0"),
        (["model.width=5"], "width must be a positive multiple of 4"),
        (["partition.scheme=cut"], "partition.scheme: 'cut' is not known; choose one of: dirichlet, iid"),
        (["partition.alpha=-1"], "partition.alpha:"),
        (["data.scanner_shift=2"], "data.scanner_shift:"),
        (["data.image_size=2"], "data.image_size:"),
        (["privacy.accountant=prv"], "privacy.accountant: 'prv' is not known; choose one of: rdp"),
        (["training.learning_rate=-1"], "training.learning_rate: must be positive"),
        (["training.momentum=1"], "training.momentum: must lie in [0, 1)"),
        (["training.optimizer=lion"], "training.optimizer: 'lion' is not known; choose one of: adamw, nadam, sgd"),
        (["training.weight_decay=-1"], "training.weight_decay: must be a number of at least 0, got -1"),
        (["training.weight_decay=inf"], "training.weight_decay: must be a number of at least 0, got inf"),
        (["training.schedule=step"], "training.schedule: 'step' is not known; choose one of: constant, cosine, linear"),
        (["training.warmup=1"], "training.warmup: must lie in [0, 1), got 1"),
        (["training.final_fraction=0"], "training.final_fraction: must lie in (0, 1], got 0"),
        (
            ["training.augmentation=x"],
            "training.augmentation: 'x' is not known; choose one of: flip, flip_all, flip_all_shift, flip_shift, none",
        ),
        (["training.multiplicity=0"], "training.multiplicity: must be at least 1, got 0"),
        (["training.ema_decay=1"], "training.ema_decay: must lie in [0, 1), got 1"),
        (["training.ema_decay=nan"], "training.ema_decay: must lie in [0, 1), got nan"),
        (
            ["training.grad_mode=x"],
            "training.grad_mode: 'x' is not known; choose one of: hbdp, opacus, torch_func",
        ),
        (["training.precision=fp8"], "training.precision: 'fp8' is not known; choose one of: bf16, float32, float64"),
        (
            ["training.precision=bf16", "training.grad_mode=opacus"],
            "training.precision: bf16 needs training.grad_mode=hbdp; opacus takes float32 or float64",
        ),
        (["training.max_physical_batch=0"], "training.max_physical_batch: must be at least 1, got 0"),
        (["privacy.secure_noise=perhaps"], "privacy.secure_noise: Value 'perhaps' is not a valid bool"),
        (["federation.weighting=x"], "federation.weighting: 'x' is not known; choose one of: equal, records"),
        (
            ["adversary.attack=x"],
            "adversary.attack: 'x' is not known; choose one of: all, auto, candidate_matching,",
        ),
        (["evaluation.bootstrap=-1"], "evaluation.bootstrap: must be at least 0, got -1"),
        (["evaluation.matrix=-1"], "evaluation.matrix: must be at least 0, got -1"),
        (["data.num_val=7"], "adversary.attack: imprint needs at least"),
        (["adversary.bins=1"], "adversary.bins: must be at least 2"),
        (["engine.threads_per_client=0"], "engine.threads_per_client: must be at least 1"),
        (["clients=1000000"], "clients: must be at most 100000, got 1e+06"),
        (["eps=1e300"], "eps: must be at most 1e+20, or inf for no privacy, got 1e+300"),
        (["training.rounds=1000000"], "training.rounds: must be at most 100000, got 1e+06"),
        (["training.rounds=null", "training.epochs=1e6"], "training.rounds: must be at most 100000, got 1.875e+06"),
        (["training.max_grad_norm=1e-300"], "training.max_grad_norm: must be at least 1e-20, got 1e-300"),
        (["training.expected_batch=1e-300"], "training.expected_batch: must be at least 0.01, got 1e-300"),
        (["model.width=40000"], "model.width: must be at most 4096, got 40000"),
        (["engine.threads_per_client=99999"], "engine.threads_per_client: must be at most 1024, got 99999"),
        (["federation.trim=nan"], "federation.trim: must be a number, got nan"),
        (["federation.profiles={default: {latency_s: 1e308}}"], "federation.profiles: must be at most 1e+30, got"),
        (["federation.faults=[{hospital: hospital-01, round: -5, kind: empty}]"], "federation.faults: must be at"),
        (["data.num_train=99999999"], "data.num_train: images of 28 pixels a side can be 1369568 at most"),
        (
            [
                "training.rounds=null",
                "data.recipes=[{eps: 0, rounds: 1, local_steps: 1, learning_rate: 1, "
                "expected_batch: 1, max_grad_norm: 1}]",
            ],
            "data.recipes: eps must be a positive number or inf in each of them",
        ),
        (["adversary.rounds=[9]"], "adversary.rounds: must be from 1 to 3, the probes included; got 9"),
        (["name=../../x"], "name: must be 1 to 100 letters without /"),
        (["name="], "name: must be 1 to 100 letters without /"),
        (["run_dir="], "run_dir: must not be empty"),
        ([f"run_dir={'x' * 400}"], "cannot be used as a path (File name too long)"),
        (["run_dir='~nosuchuser/x'"], "run_dir: '~nosuchuser/x' cannot be used as a path"),
        (["engine.workers=0"], "engine.workers: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_before_anything_is_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert shown.out in {"", "reading phantom\n"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (lambda: nn.BatchNorm2d(1), "'0' (BatchNorm2d) mixes records; use GroupNorm"),
        (lambda: nn.Conv2d(1, 1, kernel_size=99), "Kernel size can't be greater than actual input size"),
    ],
)
def test_a_model_that_cannot_be_trained_on_the_images_is_refused_before_anything_is_written(
    layer: Callable[[], nn.Module],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def build(**_: Any) -> nn.Module:
        return nn.Sequential(layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))

    monkeypatch.setitem(MODELS, "cnn", build)  # type: ignore[arg-type]
    assert main(SMALL) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: model: cnn cannot be trained on phantom: ")
    assert problem in shown.err.replace("\n", " ")
    assert shown.out == "reading phantom\n"
    assert list(tmp_path.iterdir()) == []


def test_games_that_would_be_left_out_are_refused_where_somebody_named_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.adversary_plan._AFFORDABLE", 1.0)
    few = ["adversary.candidates=4", "adversary.targets=4", *BARE[1:]]
    for program, key in ((main, "run_dir"), (sweep, "sweep_dir")):
        assert program([*SMALL[1:], *few, "adversary.attack=[imprint,membership]", f"{key}={tmp_path / 'r'}"]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("error: adversary.observed_rounds: must be given for membership, since a round of")
        assert list(tmp_path.iterdir()) == []
    # Nobody named it, and so nothing is refused; and who says how many rounds gets them.
    assert main([*SMALL, *few, "adversary.attack=auto", f"run_dir={tmp_path / 'auto'}"]) == 0
    assert "attack left out: candidate_matching, membership: " in capsys.readouterr().out
    named = ["adversary.attack=membership", "adversary.observed_rounds=1"]
    assert main([*SMALL, *few, *named, f"run_dir={tmp_path / 'named'}"]) == 0


def test_a_data_set_without_its_file_names_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBDP_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / "medmnist" / "pneumoniamnist.npz"
    assert main(["data=pneumoniamnist"]) == 2
    assert str(path.parent.parent) in capsys.readouterr().err
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 not an archive")
    assert main(["data=pneumoniamnist"]) == 2
    assert str(path) in capsys.readouterr().err
    monkeypatch.delenv("HBDP_DATA")
    assert main(["data=pneumoniamnist"]) == 2
    assert "HBDP_DATA" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_never_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*SMALL, f"run_dir={tmp_path}"]) == 2
    assert "run_dir" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_hospital_that_raises_ends_the_run_with_its_name_and_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hbdp_fed.federation import local_round

    genuine = local_round.train_locally

    def fails_late(**arguments: Any) -> Any:
        if len(arguments["labels"]) and arguments["batch_generator"].initial_seed() == fails_late.seed:  # type: ignore[attr-defined]
            raise FloatingPointError("the scanner's disk is full of stars")
        return genuine(**arguments)

    from hbdp_fed.seeding import batch_stream

    fails_late.seed = batch_stream(0, "hospital-02", 2).initial_seed()  # type: ignore[attr-defined]
    monkeypatch.setattr(local_round, "train_locally", fails_late)
    assert main([*SMALL, f"run_dir={tmp_path / 'r'}"]) == 1
    shown = capsys.readouterr().err
    assert "hospital-02 failed" in shown
    assert "Traceback" in shown
    assert "full of stars" in shown
    # Nothing that was computed before is lost.
    assert (tmp_path / "r/checkpoints/round-0001.safetensors").exists()
    lines = [json.loads(line) for line in (tmp_path / "r/rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["status"]) for line in lines] == [*[(1, "ok")] * 3, (2, "ok"), (2, "failed")]
    assert lines[-1]["hospital"] == "hospital-02"
    assert not (tmp_path / "r/summary.json").exists()


@pytest.mark.parametrize("attack", ["none", "auto"])
def test_training_that_diverges_ends_with_one_line_that_says_so(
    attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eps=8", "training.learning_rate=1e10", f"adversary.attack={attack}", f"run_dir={tmp_path / 'r'}"]
    assert main([*SMALL, *given]) == 1
    shown = capsys.readouterr()
    assert shown.err == (
        "error: no round left a model whose outputs are finite: training has diverged; "
        "take a smaller training.learning_rate\n"
    )
    assert "not finished; what was computed so far is in" in shown.out
    assert not (tmp_path / "r/model.safetensors").exists()
    assert not (tmp_path / "r/summary.json").exists()


def test_an_update_that_is_not_finite_ends_the_run_with_its_hospitals_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without clipping, a gradient that has overflowed is sent as it is."""
    given = ["eps=inf", "training.learning_rate=1e30", f"run_dir={tmp_path / 'r'}"]
    assert main([*SMALL, *given]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: hospital-01 failed:\n")
    assert "round 1: the update is not finite in " in shown
    assert "Traceback" not in shown


def test_a_servers_step_that_leaves_no_finite_weights_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["federation.server_optimizer=sgd", "federation.server_learning_rate=1e30"]
    server = ["training.learning_rate=1e12", "federation.server_momentum=0", f"run_dir={tmp_path / 'r'}"]
    assert main([*SMALL, *BARE, *given, *server]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: after round 1 the global weights are not finite in ")
    assert shown.count("\n") == 1
