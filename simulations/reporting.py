"""What a finished run leaves for people and for programs that use its model: figures, report and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbdp_fed.audit import save_figure
from hbdp_fed.report import (
    render_report,
    render_report_markdown,
    render_sweep_markdown,
    render_sweep_report,
    report_figures,
    report_partition_figure,
    run_card,
    sweep_figures,
)
from hbdp_fed.training import resolve_device
from simulations.checks import REPORTS
from simulations.model_setup import own_settings
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder, environment
from simulations.schema import DataConfig, RunConfig

# Where this machine keeps its files is nobody else's business.
_LOCAL = ("run_dir", "resume", "tracking")


def shared_settings(config: RunConfig) -> dict[str, Any]:
    """The settings as a report and a card show them: without the paths of this machine."""
    settings = {name: value for name, value in asdict(config).items() if name not in _LOCAL}
    weights = config.model.weights
    settings["model"] = {**settings["model"], "weights": None if weights is None else Path(weights).name}
    del settings["data"]["recipes"], settings["data"]["cache"]
    del settings["engine"]["root_certificates"], settings["engine"]["federations"]
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


def draw_partition(prepared: Prepared, folder: RunFolder, partition: Mapping[str, Any]) -> None:
    """``figures/partition.png``, before anything is trained."""
    figure = report_partition_figure(partition, smallest=prepared.config.smallest_count)
    save_figure(figure, folder.figures / "partition.png")


def write_reports(
    prepared: Prepared, folder: RunFolder, summary: Mapping[str, Any], reconstructions: Mapping[str, Path]
) -> list[Path]:
    """The report in the forms that ``report`` asks for, and the pictures in ``figures/``.

    Args:
        prepared: The run.
        folder: Where it lies.
        summary: As it is read from ``summary.json``.
        reconstructions: The pictures of the best reconstructions, by attack and surface.

    Returns:
        The files of the report.
    """
    smallest = prepared.config.smallest_count
    drawn = report_figures(summary, smallest=smallest)
    pictures = {name: folder.figures / f"{name}.png" for name in drawn}
    for name, figure in drawn.items():
        save_figure(figure, pictures[name])
    common: dict[str, Any] = {
        "settings": shared_settings(prepared.config),
        "environment": folder.read_environment(),
        "smallest": smallest,
    }

    def as_html() -> str:
        return render_report(
            summary,
            reconstructions={name: path.read_bytes() for name, path in reconstructions.items()},
            pictures={name: path.read_bytes() for name, path in pictures.items()},
            **common,
        )

    def as_md() -> str:
        return render_report_markdown(
            summary,
            reconstructions=_beside(folder.path, reconstructions),
            pictures=_beside(folder.path, pictures),
            **common,
        )

    forms = {"html": as_html, "md": as_md}
    return [folder.write_report(forms[ending](), ending) for ending in REPORTS[prepared.config.report]]


def write_sweep_reports(
    folder: Path,
    sweep: Mapping[str, Any],
    grids: Mapping[str, Path],
    config: RunConfig,
    *,
    recommendation: Mapping[str, Any] | None = None,
) -> list[Path]:
    """A sweep's report in the forms that ``report`` asks for, and its pictures in ``figures/``.

    Args:
        folder: The sweep's.
        sweep: As it is read from ``sweep.json``.
        grids: The pictures of the best reconstructions with a row a budget, by attack and surface.
        config: What all its runs share.
        recommendation: What a policy recommends on the sweep's first group, if somebody asked.

    Returns:
        The files of the report.
    """
    pictures: list[dict[str, Path]] = []
    for place in range(len(sweep["groups"])):
        own = recommendation if place == 0 else None
        ending = f"-{place + 1}" if len(sweep["groups"]) > 1 else ""
        drawn = sweep_figures(sweep, group=place, recommendation=own)
        pictures.append({name: folder / "figures" / f"{name}{ending}.png" for name in drawn})
        for name, figure in drawn.items():
            save_figure(figure, pictures[-1][name])
    common: dict[str, Any] = {
        "recommendation": recommendation,
        "environment": environment(resolve_device(config.device)),
        "smallest": config.smallest_count,
    }

    def as_html() -> str:
        return render_sweep_report(sweep, grids={name: path.read_bytes() for name, path in grids.items()}, **common)

    def as_md() -> str:
        return render_sweep_markdown(
            sweep, pictures=[_beside(folder, own) for own in pictures], grids=_beside(folder, grids), **common
        )

    forms = {"html": as_html, "md": as_md}
    return [RunFolder(folder).write_report(forms[ending](), ending) for ending in REPORTS[config.report]]


def _beside(folder: Path, paths: Mapping[str, Path]) -> dict[str, str]:
    """The paths as a text in the folder names them."""
    return {name: path.relative_to(folder).as_posix() for name, path in paths.items()}
