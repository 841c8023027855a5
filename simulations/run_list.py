"""What can be told of runs by their folders alone, without loading a model or PyTorch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hbdp_fed.errors import shown
from hbdp_fed.strict_json import harmless, loads
from simulations.headers import last_round
from simulations.yaml_file import read_yaml

FINISHED, INTERRUPTED, FAILED, UNFINISHED, BROKEN = "finished", "interrupted", "failed", "unfinished", "broken"
"""``unfinished`` runs left no word of their end: they were cut off, or are still going on."""

_CONFIG = "config.yaml"
_STAMP = re.compile(r"\d{8}-\d{6}(?=_)")
_HASH_LENGTH = 8


@dataclass(frozen=True)
class Risk:
    """The attack that won most.

    Attributes:
        attack: Its name.
        threat_model: Whose.
        success_rate: Share of the records, in [0, 1].
    """

    attack: str
    threat_model: str
    success_rate: float


@dataclass(frozen=True)
class Listed:
    """A run in a list. What is not known is None.

    Attributes:
        folder: Where it is.
        name: Its setting ``name``.
        when: When it was started, by the name of its folder, or else when its settings were written; local time.
        state: ``finished``, ``interrupted``, ``failed``, ``unfinished`` or ``broken``.
        reason: Why it failed or cannot be read.
        rounds_done: Training rounds that count.
        rounds: Of so many.
        data: The data set.
        clients: Hospitals.
        eps: The budget; infinity without one.
        metric: By what rounds were chosen on validation.
        utility: That figure of the released model on the test split.
        risk: The most successful attack.
        model_sha256: Of the released model.
    """

    folder: Path
    when: datetime
    state: str
    name: str | None = None
    reason: str | None = None
    rounds_done: int | None = None
    rounds: int | None = None
    data: str | None = None
    clients: int | None = None
    eps: float | None = None
    metric: str | None = None
    utility: float | None = None
    risk: Risk | None = None
    model_sha256: str | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether ``resume=`` takes it."""
        return self.state in {INTERRUPTED, FAILED, UNFINISHED}

    @property
    def short_hash(self) -> str | None:
        """The first digits of the model's hash."""
        return None if self.model_sha256 is None else self.model_sha256[:_HASH_LENGTH]


def runs_in(folder: Path) -> list[Listed]:
    """All runs in a folder and below, by time, newest last. A folder with a ``config.yaml`` is a run."""
    return sorted(map(listed, run_folders(folder)), key=lambda run: (run.when, run.folder))


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders of runs, themselves not searched for others. Links are not followed and hidden folders left out."""
    for path, folders, files in os.walk(folder):
        if _CONFIG in files:
            folders.clear()
            yield Path(path)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def listed(folder: Path) -> Listed:
    """What is known of one run. A folder that cannot be read is ``broken``; nothing is raised."""
    when = _when(folder)
    try:
        config = _config(folder)
        if (folder / "summary.json").exists():
            return _finished(folder, when, config, harmless(loads((folder / "summary.json").read_bytes())))
        return _unfinished(folder, when, config)
    except OSError as error:
        reason = f"{Path(error.filename).name if error.filename else folder.name}: {error.strerror}"
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())}"
    return Listed(folder, when, BROKEN, reason=shown(reason))


def _when(folder: Path) -> datetime:
    stamp = _STAMP.match(folder.name)
    if stamp is not None:
        # A name that only looks like a time, as of a 31st of June, says nothing.
        with suppress(ValueError):
            return datetime.strptime(stamp[0], "%Y%m%d-%H%M%S")
    try:
        return datetime.fromtimestamp((folder / _CONFIG).stat().st_mtime)
    except OSError:
        return datetime.min


def _config(folder: Path) -> Mapping[str, Any]:
    found = harmless(read_yaml(folder / _CONFIG))
    if not isinstance(found, dict):
        raise ValueError(f"{_CONFIG} is no configuration")
    return found


def _finished(folder: Path, when: datetime, config: Mapping[str, Any], summary: Mapping[str, Any]) -> Listed:
    # Summaries of the first versions do not name their task's figures.
    metric = (summary.get("selection") or summary.get("metrics") or [*summary["utility"]])[0]
    value = summary["utility"].get(metric)
    return Listed(
        folder,
        when,
        FINISHED,
        name=str(config["name"]),
        rounds_done=int(summary["rounds"]),
        rounds=int(summary["rounds"]),
        data=str(summary["dataset"]),
        clients=int(summary["clients"]),
        eps=float(summary["privacy"]["eps"]),
        metric=str(metric),
        utility=None if value is None else float(value),
        risk=_largest_risk(summary["risk"]),
        model_sha256=str(summary["model_sha256"]),
    )


def _unfinished(folder: Path, when: datetime, config: Mapping[str, Any]) -> Listed:
    ending = folder / "ending.json"
    kept = harmless(loads(ending.read_bytes())) if ending.exists() else {}
    state = kept.get("state", UNFINISHED)
    if state not in (INTERRUPTED, FAILED, UNFINISHED):
        raise ValueError(f"{ending.name} tells of no ending")
    # What a recipe fills in is not among the settings.
    rounds = kept.get("rounds") or config["training"]["rounds"]
    return Listed(
        folder,
        when,
        state,
        name=str(config["name"]),
        reason=str(kept.get("reason")) if state == FAILED else None,
        rounds_done=last_round(folder / "standing.safetensors"),
        rounds=None if rounds is None else int(rounds),
        data=str(config["data"]["name"]),
        clients=int(config["clients"]),
        eps=float(config["eps"]),
    )


def _largest_risk(risk: Mapping[str, Any]) -> Risk | None:
    won = [
        Risk(str(attack["name"]), str(model), float(attack["success_rate"]))
        for model, entry in risk.items()
        for attack in entry["attacks"]
        if attack["success_rate"] is not None
    ]
    return max(won, key=lambda found: found.success_rate, default=None)
