"""The settings of a run that was started before, as it wrote them down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hbdp_fed.errors import SettingError
from simulations.compose import INTERPOLATION, check_values, compose_run
from simulations.run_folder import RunFolder
from simulations.yaml_file import YamlProblem, parse_yaml, read_text


def composed_of(source: RunFolder, *, key: str, others: Sequence[str] = ()) -> DictConfig:
    """The run's own configuration.

    Args:
        source: Its folder.
        key: The setting that named the folder, for messages.
        others: Settings that take the place of its own, as ``key=value``.

    Raises:
        SettingError: if the folder holds no run that can be read.
    """
    path = source.path / "config.yaml"
    if not path.is_file():
        raise SettingError(key, f"{source.path} holds no run: there is no config.yaml")
    try:
        loaded = _loaded(read_text(path))
    except (OSError, YamlProblem) as error:
        raise SettingError(key, f"{path} is no configuration: {error}") from error
    try:
        chosen = [f"{group}={loaded[group].name}" for group in ("data", "model", "engine")]
    except (AttributeError, KeyError) as error:
        raise SettingError(key, f"{path} is no run's configuration: {str(error).splitlines()[0]}") from error
    composed = compose_run(chosen)
    try:
        merged = OmegaConf.merge(composed, loaded)
        if others:
            compose_run([*chosen, *others])  # refuses what is not known, with the message that names what is
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(others)))
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(key, f"{path} is of another version: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    check_values(merged)
    return merged


def _loaded(text: str) -> DictConfig:
    """The file as OmegaConf reads it, which knows more numbers than YAML does.

    Raises:
        YamlProblem: if it is none that a run writes, who writes down what was looked up and never where.
    """
    if not isinstance(parse_yaml(text), dict):
        raise YamlProblem("is no mapping")
    if INTERPOLATION in text:
        raise YamlProblem(f"it holds {INTERPOLATION}...}}, which no run writes")
    try:
        loaded: Any = OmegaConf.create(text)
    except Exception as error:
        raise YamlProblem(str(error).splitlines()[0]) from error
    assert isinstance(loaded, DictConfig)
    return loaded
