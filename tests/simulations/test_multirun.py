"""Hydra's --multirun: which runs it stands for, and that they are run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbdp_fed.errors import UserError
from simulations.multirun import planned_runs
from simulations.run import main

SMALL = [
    "engine=inprocess", "clients=2", "training.rounds=1", "training.local_steps=1", "training.expected_batch=8",
    "data.num_train=40", "data.num_val=40", "data.num_test=40", "model.width=4", "adversary.attack=none",
    "evaluation.bootstrap=0",
]  # fmt: skip


def test_what_comes_last_varies_fastest(tmp_path: Path) -> None:
    runs = planned_runs(["eps=1,inf", "clients=3", "seed=range(0,2)", f"run_dir={tmp_path / 'all'}"])
    assert runs == [
        [f"eps={eps}", "clients=3", f"seed={seed}", f"run_dir={tmp_path / 'all' / str(number)}"]
        for number, (eps, seed) in enumerate([("1", 0), ("1", 1), ("inf", 0), ("inf", 1)])
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["eps=1,none"], "eps"), (["epz=1,2"], "did you mean 'eps'"), (["resume=x"], "leave --multirun out")],
)
def test_a_wrong_value_is_found_before_the_first_run(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned_runs(arguments)


def test_every_run_is_done(tmp_path: Path) -> None:
    assert main(["--multirun", *SMALL, "eps=8,1e9", f"run_dir={tmp_path / 'all'}"]) == 0
    found = [json.loads((tmp_path / "all" / name / "summary.json").read_text()) for name in ("0", "1")]
    assert [summary["privacy"]["eps"] for summary in found] == [8, 1e9]
