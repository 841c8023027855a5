"""What two sides of a comparison name: folders of finished runs, or of sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hbdp_fed.audit.comparison import FinishedRun, judgement_of, read_predictions
from hbdp_fed.errors import DataFileError, SettingError, UserError
from hbdp_fed.strict_json import harmless, loads
from simulations.run_folder import SWEEP_FILE, RunFolder, read_summary
from simulations.run_list import BROKEN, FINISHED, listed, run_folders
from simulations.runs import resume_command
from simulations.typed_path import exists, typed_path
from simulations.yaml_file import YamlProblem, read_yaml

SIDES = ("A", "B")
"""By what messages call the two sides."""

_NEEDED = ("task", "dataset", "utility", "privacy", "risk")
_NEEDED_OF_SWEEP = ("name", "settings", "groups")
_NAMED = 5


@dataclass(frozen=True)
class Named:
    """A folder as it was typed, and the side that it belongs to."""

    side: str
    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return typed_path(self.side, self.name)


def folders_of(side: str, text: str) -> list[Named]:
    """The folders that one side's word names: one, several with commas between them, or a pattern such as ``a_*``.

    Raises:
        SettingError: if one of them is not there, or the pattern fits nothing.
    """
    if exists(text):
        return [Named(side, text)]
    found: list[Named] = []
    for part in filter(None, text.split(",")):
        path = typed_path(side, part)
        if "**" in part:
            raise SettingError(side, f"'{part}' would search whole trees; a pattern has single stars, as in runs/a_*")
        fitting = sorted(_fitting(path)) if "*" in part and not path.exists() else [part]
        if not fitting:
            raise SettingError(side, f"no folder fits '{part}'")
        found += [Named(side, name) for name in fitting]
    for named in found:
        if not named.path.is_dir():
            raise SettingError(side, f"'{named.name}' is no folder; name the folder of a run or a sweep")
    if not found:
        raise SettingError(side, "names no folder")
    return found


def _fitting(pattern: Path) -> Iterator[str]:
    start = Path(pattern.anchor or ".")
    return (str(path) for path in start.glob(str(pattern.relative_to(pattern.anchor))) if path.is_dir())


def is_sweep(named: Named) -> bool:
    """Whether the folder holds a sweep rather than a run."""
    return (named.path / SWEEP_FILE).is_file()


def read_sweep(named: Named) -> Mapping[str, Any]:
    """The content of ``sweep.json``.

    Raises:
        DataFileError: if it cannot be read or is not a sweep's.
    """
    path = named.path / SWEEP_FILE
    content = _read_json(path)
    missing = [name for name in _NEEDED_OF_SWEEP if name not in content]
    if missing or content.get("kind") != "sweep":
        raise DataFileError(path, f"is no sweep's: it has no {', '.join(missing) or 'kind=sweep'}")
    return content


def read_run(named: Named) -> FinishedRun:
    """What a finished run left.

    Raises:
        SettingError: if the folder holds no run, or one that is not finished.
        DataFileError: if what it left cannot be read.
    """
    paths = RunFolder(named.path)
    _check_finished(named)
    try:
        summary = harmless(read_summary(paths.path))
    except (OSError, ValueError) as error:
        raise DataFileError(paths.summary_file, f"cannot be read ({error})") from error
    missing = [name for name in _NEEDED if name not in summary]
    if missing:
        raise DataFileError(paths.summary_file, f"has no {', '.join(missing)}; it should be a run's summary")
    environment = paths.path / "environment.json"
    judgement, unread = None, None
    try:
        judgement = judgement_of(read_predictions(paths.predictions_file), summary["utility"].get("point") or {})
    except UserError as error:
        unread = str(error)
    return FinishedRun(
        folder=named.name,
        config=_read_config(paths.path / "config.yaml"),
        environment=_read_json(environment) if environment.exists() else {},
        summary=summary,
        judgement=judgement,
        unread=unread,
    )


def _check_finished(named: Named) -> None:
    if not (named.path / "config.yaml").is_file():
        inside = list(islice(run_folders(named.path), _NAMED))
        advice = f"; in it there are {', '.join(map(str, inside))}" if inside else ""
        raise SettingError(named.side, f"'{named.name}' holds no run: there is no config.yaml{advice}")
    if (named.path / "summary.json").exists():
        return
    found = listed(named.path)
    if found.state == BROKEN:
        raise SettingError(named.side, f"'{named.name}' is no run that can be read: {found.reason}")
    assert found.state != FINISHED
    far = f"after round {found.rounds_done}" + (f" of {found.rounds}" if found.rounds else "")
    raise SettingError(
        named.side, f"'{named.name}' is not finished ({found.state} {far}); finish it with: {resume_command(found)}"
    )


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        content = harmless(read_yaml(path))
    except (OSError, YamlProblem) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise DataFileError(path, "is no run's configuration")
    return content


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = harmless(loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise DataFileError(path, "is no JSON object")
    return content


def check_kinds(sides: Sequence[Sequence[Named]]) -> bool:
    """Whether the two sides are sweeps.

    Raises:
        SettingError: if one side is and the other is not, or a side names several sweeps.
    """
    kinds = [{is_sweep(named) for named in side} for side in sides]
    if kinds == [{False}, {False}]:
        return False
    if kinds == [{True}, {True}]:
        for side in sides:
            if len(side) > 1:
                raise SettingError(side[0].side, f"names {len(side)} sweeps; name one")
        return True
    sweep = next(named for side in sides for named in side if is_sweep(named))
    raise SettingError(
        sweep.side,
        f"'{sweep.name}' is a sweep, and another folder is not; compare sweeps with sweeps, and runs with runs, for "
        "example with those in the sweep's folder",
    )
