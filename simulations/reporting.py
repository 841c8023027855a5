"""What a finished run leaves for people and for programs that use its model: figures, report and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbdp_fed.report import run_card
from simulations.model_setup import own_settings
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder
from simulations.schema import DataConfig, RunConfig

# Where this machine keeps its files is nobody else's business.
_LOCAL = ("run_dir", "resume", "tracking")


def shared_settings(config: RunConfig) -> dict[str, Any]:
    """The settings as a report and a card show them: without the paths of this machine."""
    settings = {name: value for name, value in asdict(config).items() if name not in _LOCAL}
    weights = config.model.weights
    settings["model"] = {**settings["model"], "weights": None if weights is None else Path(weights).name}
    del settings["data"]["recipes"]
    return settings


def write_card(prepared: Prepared, folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """``card.json``, beside the model that it describes.

    Args:
        prepared: The run.
        folder: Where it lies.
        summary: As it is read from ``summary.json``.
    """
    dataset, config = prepared.dataset, prepared.config
    preparation = dataset.preparation
    card = run_card(
        summary,
        architecture=prepared.architecture,
        shape=tuple(dataset.train.images.shape[1:]),
        spacing=dataset.spacing,
        preparation=None if preparation is None else asdict(preparation),
        data_options=own_settings(config.data, DataConfig),
        licence=dataset.licence,
        model_file=folder.model_file,
        settings=shared_settings(config),
        environment=folder.read_environment(),
        smallest=config.smallest_count,
    )
    folder.write_card(card)
