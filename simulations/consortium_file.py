"""Where a consortium and a sweep are read from: files that people name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.planning import Consortium, SweepFile, local_settings, model_size, read_consortium, read_sweep
from hbdp_fed.strict_json import harmless, loads
from simulations.run_folder import SWEEP_FILE
from simulations.typed_path import typed_path
from simulations.yaml_file import YamlProblem, read_yaml

_EXAMPLES = "consortia"


def example_names() -> list[str]:
    """The consortia that come with the package."""
    folder = resources.files("configs").joinpath(_EXAMPLES)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_consortium(wanted: str) -> Consortium:
    """The consortium in a file, or the example of that name.

    Raises:
        SettingError: if there is neither.
        DataFileError: if the file cannot be read, naming the first thing in it that is wrong.
    """
    path = _file_of(wanted)
    try:
        consortium = read_consortium(harmless(read_yaml(path)))
        # What the registries do not know is wrong in the file, too.
        model_size(consortium)
        local_settings(consortium)
    except SettingError as error:
        raise DataFileError(path, f"{error.key}: {error.problem}") from error
    except YamlProblem as error:
        raise DataFileError(path, str(error)) from error
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error}") from error
    return consortium


def _file_of(wanted: str) -> Path:
    names = example_names()
    if wanted in names:
        return Path(str(resources.files("configs").joinpath(_EXAMPLES, f"{wanted}.yaml")))
    path = typed_path("consortium", wanted).resolve()
    if not path.is_file():
        raise SettingError(
            "consortium", f"there is no file {path}; name a YAML file or one of the examples: {', '.join(names)}"
        )
    return path


def load_sweep(wanted: str) -> SweepFile:
    """The sweep in a folder or file.

    Raises:
        SettingError: if there is none.
        DataFileError: if the file cannot be read, naming the first thing in it that is wrong.
    """
    path = typed_path("sweep", wanted).resolve()
    path = path / SWEEP_FILE if path.is_dir() else path
    if not path.is_file():
        raise SettingError("sweep", f"there is no {path}; name the folder of a sweep, or its {SWEEP_FILE}")
    try:
        return read_sweep(harmless(loads(path.read_bytes())))
    except SettingError as error:
        raise DataFileError(path, f"{error.key}: {error.problem}") from error
    except ValueError as error:
        raise DataFileError(path, f"is not JSON: {error}") from error
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error}") from error


def chosen_group(sweep: SweepFile, wanted: int | None, *, hospitals: int) -> int:
    """The place of the group that a plan is about: the one asked for, the only one, or the one of as many hospitals.

    Raises:
        SettingError: if it is not clear which.
    """
    groups = sweep.groups
    if wanted is not None:
        if not 0 <= wanted < len(groups):
            raise SettingError("group", f"must be from 0 to {len(groups) - 1}, got {wanted}: {_listed(groups)}")
        return wanted
    alike = [place for place in range(len(groups)) if sweep.clients(place) == hospitals]
    if len(groups) == 1 or len(alike) == 1:
        return alike[0] if alike else 0
    raise SettingError("group", f"the sweep has {len(groups)} groups; choose one: {_listed(groups)}")


def _listed(groups: Sequence[Any]) -> str:
    words = (", ".join(f"{name}={value}" for name, value in values.items()) or "-" for values in groups)
    return "; ".join(f"{place} ({text})" for place, text in enumerate(words))
