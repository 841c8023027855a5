"""The settings of a run that was started before, as it wrote them down."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from hbdp_fed.errors import SettingError
from simulations.compose import compose_run
from simulations.run_folder import RunFolder


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
        loaded = OmegaConf.load(path)
    except Exception as error:
        raise SettingError(key, f"{path} is no configuration: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, DictConfig):
        raise SettingError(key, f"{path} is no configuration")
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
    return merged
