"""Where a run is written, and what it says about where it ran."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import simulations.run_folder
from hbdp_fed.errors import SettingError
from simulations.run_folder import create, environment, planned_folder


def test_planning_creates_nothing_and_never_reuses_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = planned_folder(None, "trial")
    assert list(tmp_path.iterdir()) == []
    assert first.parent == tmp_path / "runs"
    assert first.name.endswith("_trial")
    create(first)
    assert planned_folder(None, "trial") != first


def test_an_empty_folder_can_be_given_and_a_file_cannot(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert planned_folder(str(tmp_path / "empty"), "x") == tmp_path / "empty"
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"run_dir: .*file exists and is not an empty folder"):
        planned_folder(str(tmp_path / "file"), "x")


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"run_dir: .*cannot be created"):
        create(tmp_path / "file" / "run")


def test_the_environment_names_every_version_that_can_change_a_result() -> None:
    found = environment(torch.device("cpu"))
    assert found["versions"]["torch"] == torch.__version__
    assert all(found["versions"][name] for name in ("flwr", "ray", "opacus", "monai", "numpy"))
    json.dumps(found)


def test_an_installed_copy_does_not_claim_a_foreign_repositorys_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copytree(Path(simulations.run_folder.__file__).parent, tmp_path / "simulations")
    program = f"import simulations.run_folder as f; print(f.__file__.startswith({str(tmp_path)!r}), f._git_commit())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["True", "None"]
