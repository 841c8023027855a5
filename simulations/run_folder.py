"""What a run leaves on disk. Everything is written as soon as it exists, so that a crash loses nothing before it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hbdp_fed.errors import SettingError
from hbdp_fed.models import save_weights
from hbdp_fed.strict_json import dumps, loads
from hbdp_fed.types import ModelUpdate, Weights
from hbdp_fed.whole_files import write_whole
from simulations.typed_path import check_name, typed_path

SWEEP_FILE = "sweep.json"
"""What makes a folder that of a sweep: everything that came of its runs."""

_PACKAGES = ("hbdp-fed", "flwr", "ray", "torch", "opacus", "monai", "hydra-core", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: Absolute path.
    """

    path: Path

    @property
    def observations(self) -> Path:
        """Exactly what travelled from the hospitals: a folder a round, a file a hospital."""
        return self.path / "observations"

    @property
    def reconstructions(self) -> Path:
        """What attacks made of the observations, and the pictures."""
        return self.path / "reconstructions"

    @property
    def model_file(self) -> Path:
        """The released model."""
        return self.path / "model.safetensors"

    @property
    def summary_file(self) -> Path:
        """The figures that other programs read."""
        return self.path / "summary.json"

    @property
    def card_file(self) -> Path:
        """What the released model is, and how it is asked: the run card."""
        return self.path / "card.json"

    @property
    def standing_file(self) -> Path:
        """Where the run stands after its last round."""
        return self.path / "standing.safetensors"

    @property
    def ledger_file(self) -> Path:
        """What every hospital planned and spent."""
        return self.path / "ledger.jsonl"

    @property
    def predictions_file(self) -> Path:
        """The released model's answer for each test record: the experimenter's view."""
        return self.path / "predictions.npz"

    @property
    def logs(self) -> Path:
        """A readable log of each hospital: the experimenter's view."""
        return self.path / "logs"

    @property
    def ending_file(self) -> Path:
        """How a run that did not finish ended; not there while it goes on, nor after a kill or a power cut."""
        return self.path / "ending.json"

    @property
    def figures(self) -> Path:
        """Pictures of the data and of utility."""
        return self.path / "figures"

    def write_report(self, text: str, ending: str) -> Path:
        """``report.html`` or ``report.md``, by the ending; the file."""
        file = self.path / f"report.{ending}"
        file.write_text(text, encoding="utf-8")
        return file

    def write_config(self, config: DictConfig) -> None:
        """The resolved configuration, with which the run can be repeated."""
        (self.path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))

    def write_environment(self, *, device: torch.device) -> None:
        """Versions, machine and, where the code lies in a git checkout, its commit."""
        self._write_json("environment.json", environment(device))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """``summary.json``, whole or not at all."""
        self._write_json("summary.json", summary)

    def write_card(self, card: Mapping[str, Any]) -> None:
        """``card.json``, whole or not at all."""
        self._write_json(self.card_file.name, card)

    def read_environment(self) -> dict[str, Any]:
        """What :meth:`write_environment` wrote."""
        value: dict[str, Any] = json.loads((self.path / "environment.json").read_text())
        return value

    def write_ending(self, problem: BaseException, *, rounds: int) -> None:
        """``ending.json``: by what a run ended before its time, and of how many rounds."""
        state = "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed"
        lines = str(problem).strip().splitlines()
        reason = (f"{lines[0]} ... {lines[-1]}" if len(lines) > 1 else lines[0]) if lines else type(problem).__name__
        self._write_json("ending.json", {"state": state, "reason": reason, "rounds": rounds})

    def forget_ending(self) -> None:
        """The run goes on."""
        self.ending_file.unlink(missing_ok=True)

    def write_predictions(
        self, evidence: Mapping[str, NDArray[Any]], *, names: NDArray[Any] | None, groups: NDArray[Any] | None
    ) -> None:
        """``predictions.npz``: what is known about each test record, in the test split's order, and who it is."""
        known = {"names": names, "groups": groups}
        extra = {name: values for name, values in known.items() if values is not None}
        np.savez_compressed(self.predictions_file, allow_pickle=False, **evidence, **extra)

    def append_round(self, line: Mapping[str, Any]) -> None:
        """One line of ``rounds.jsonl``: one hospital in one round."""
        self._append("rounds.jsonl", line)

    def forget_rounds_after(self, round: int) -> None:
        """Leave out of ``rounds.jsonl`` what came after a round, and a last line that was never finished."""
        path = self.path / "rounds.jsonl"
        if not path.exists():
            return
        whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_whole(path, "".join(line for line in whole if json.loads(line)["round"] <= round))

    def round_lines(self) -> list[dict[str, Any]]:
        """What ``rounds.jsonl`` holds."""
        return [json.loads(line) for line in (self.path / "rounds.jsonl").read_text().splitlines()]

    def failed(self) -> frozenset[tuple[str, int]]:
        """Hospitals and rounds of ``rounds.jsonl`` of which no answer was used: it failed, came late, or never was."""
        lines = self.round_lines()
        used = {(line["hospital"], line["round"]) for line in lines if line["status"] == "ok"}
        return frozenset((line["hospital"], line["round"]) for line in lines) - used

    def write_checkpoint(self, round: int, weights: Weights, *, keep: int = 0) -> None:
        """The global weights (float64) after a round; round 0 holds the initial ones.

        Args:
            round: Its number.
            weights: By parameter name.
            keep: Of how many rounds the checkpoints stay, the latest ones; 0 for all.
        """
        save_weights(self.checkpoint_file(round), weights)
        if keep:
            self.checkpoint_file(round - keep).unlink(missing_ok=True)

    def checkpoint_file(self, number: int) -> Path:
        """Where :meth:`write_checkpoint` writes."""
        return self.path / "checkpoints" / f"round-{number:04d}.safetensors"

    def write_update(self, update: ModelUpdate) -> None:
        """One hospital's update as it travelled. The model it answers is the checkpoint of the round before.

        Under secure aggregation it is the mean of all, and there is nothing else.
        """
        save_weights(self.update_file(update.round, update.hospital), update.delta)

    def update_file(self, number: int, hospital: str) -> Path:
        """Where :meth:`write_update` writes."""
        return self.observations / f"round-{number:04d}" / f"{hospital.replace(' ', '-')}.safetensors"

    def _write_json(self, name: str, value: Any) -> None:
        write_whole(self.path / name, dumps(value, indent=2) + "\n")

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(dumps(line) + "\n")


def planned_folder(run_dir: str | None, name: str) -> Path:
    """Where a run will be written: ``run_dir``, or ``runs/<time>_<name>``. Nothing is created yet.

    Raises:
        SettingError: if the folder holds something already: a run never mixes with another one's files.
    """
    return chosen_folder(run_dir, Path("runs").resolve() / f"{time_stamp()}_{check_name('name', name)}", key="run_dir")


def chosen_folder(wanted: str | None, otherwise: Path, *, key: str) -> Path:
    """The folder that was asked for, or a new one: ``otherwise``, with a number behind it if that is taken.

    Args:
        wanted: As it was typed.
        otherwise: Where nothing was asked for.
        key: The setting that asks, for messages.

    Raises:
        SettingError: if the folder that was asked for holds something already.
    """
    if wanted is not None:
        path = typed_path(key, wanted).resolve()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SettingError(key, f"{path} exists and is not an empty folder; choose another one")
        return path
    path, number = otherwise, 2
    while path.exists():
        path, number = otherwise.with_name(f"{otherwise.name}-{number}"), number + 1
    return path


def time_stamp() -> str:
    """The local time as folders are named by it."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def create(path: Path, *, key: str = "run_dir") -> RunFolder:
    """Create the folder.

    Args:
        path: Where.
        key: The setting that names it, for messages.

    Raises:
        SettingError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(key, f"{path} cannot be created ({error.strerror})") from error
    return RunFolder(path)


def environment(device: torch.device) -> dict[str, Any]:
    """Everything about the machine and the software that can change a result."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this file belongs to; None for an installed copy inside somebody else's one."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a finished run, as it was written (infinities stay the string ``inf``)."""
    value: dict[str, Any] = loads((path / "summary.json").read_bytes())
    return value
