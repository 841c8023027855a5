"""Whole runs that take about a second: what tests of the main job start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.run import main

SMALL = [
    "engine=inprocess", "clients=3", "training.rounds=2", "training.local_steps=2", "training.expected_batch=8",
    "data.num_train=90", "data.num_val=60", "data.num_test=60", "model.width=4", "adversary.bins=64",
    "adversary.attack=imprint",
]  # fmt: skip
BARE = ["adversary.attack=none", "evaluation.bootstrap=0", "evaluation.matrix=0", "report=md"]
"""For runs of which only the model is looked at."""


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, f"run_dir={folder}", *arguments]) == 0
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(summary, dict)
    return summary
