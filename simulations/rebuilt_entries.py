"""Reconstructions held against the truth: an attack's figures on a surface, its pictures, its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, save_reconstruction
from hbdp_fed.adversary.denoising import Denoiser
from hbdp_fed.audit import (
    AttackFigures,
    Column,
    Originals,
    ProbeOutcome,
    attack_figures,
    best_columns,
    law_figures,
    originals_of,
    reconstruction_figure,
    save_columns,
    save_figure,
)
from hbdp_fed.privacy import relaxed_coherent
from hbdp_fed.types import Reconstruction, Surface
from simulations.assault import Assault
from simulations.probe import recording_name
from simulations.rebuild_plan import truth_of
from simulations.rebuilding import RebuildTask, Rebuilt

_APART = 2**40
"""More than any hospital has records."""


@dataclass(frozen=True)
class _Attacked:
    """One observation with what was made of it, audited.

    Attributes:
        outcome: Of the reconstruction.
        reconstruction: As the attack gave it, or cleaned.
        shown: Each record's view that was rebuilt best.
        rebuilt: All that came of the attack.
    """

    outcome: ProbeOutcome
    reconstruction: Reconstruction
    shown: Tensor
    rebuilt: Rebuilt


@dataclass(frozen=True)
class RebuiltEntry:
    """One attack on one surface.

    Attributes:
        figures: For the summary.
        columns: Its best reconstructions, by the name of the picture that shows them.
    """

    figures: AttackFigures
    columns: Mapping[str, list[Column]]


def rebuilt_entry(
    assault: Assault,
    attack: str,
    surface: Surface,
    found: Sequence[tuple[RebuildTask, Rebuilt]],
    output: Path,
    *,
    denoiser: Denoiser | None,
) -> RebuiltEntry:
    """Hold what one attack rebuilt on one surface against the truth, as it is and, if there is a denoiser, cleaned."""
    truths = [_truth(assault, task) for task, _ in found]
    given = [rebuilt.reconstruction for _, rebuilt in found]

    def held(reconstructions: Sequence[Reconstruction], *, ending: str = "") -> list[_Attacked]:
        rows = zip(found, reconstructions, truths, strict=True)
        return [
            _audited(assault, task, rebuilt, own, truth, output, ending=ending) for (task, rebuilt), own, truth in rows
        ]

    audited, cleaned = held(given), []
    columns = {f"{attack}_{surface}": _best(audited, assault)}
    if denoiser is not None:
        # Clean images alone: what a law says is of the unprocessed ones.
        cleaned = held(
            [replace(one, images=denoiser(one.images), unprocessed=None) for one in given], ending="_denoised"
        )
        columns[f"{attack}_{surface}_denoised"] = _best(cleaned, assault)
    relaxed = ATTACKS[attack].threat_model.name == "relaxed"
    prior = assault.adversary.prior
    bound = None
    if relaxed:
        # Of a record that the step drew, which is what these figures are about: no sampling stands before it.
        noise = min(one.rebuilt.noise_multiplier for one in audited)
        bound = relaxed_coherent(prior=prior, noise_multiplier=noise, sample_rate=1.0, steps=1)
    figures = attack_figures(
        attack,
        surface,
        [one.outcome for one in audited],
        criterion=assault.criterion,
        bound=bound,
        bound_prior=prior if relaxed else None,
        law=_law(audited) if relaxed else None,
        denoised=[one.outcome for one in cleaned],
    )
    return RebuiltEntry(figures, columns)


def _best(audited: Sequence[_Attacked], assault: Assault) -> list[Column]:
    return best_columns([(one.outcome, one.reconstruction, one.shown) for one in audited], assault.public)


def _truth(assault: Assault, task: RebuildTask) -> Originals:
    """What a task's reconstructions are held against, before and after a denoiser."""
    batches = truth_of(assault, task)
    return originals_of(
        torch.cat([batch.images for batch in batches]),
        assault.public,
        controls=torch.cat([batch.controls for batch in batches]),
        views=task.multiplicity,
        groups=_patients([batch.groups for batch in batches]),
        control_groups=_patients([batch.control_groups for batch in batches]),
    )


def _audited(
    assault: Assault,
    task: RebuildTask,
    rebuilt: Rebuilt,
    reconstruction: Reconstruction,
    truth: Originals,
    output: Path,
    *,
    ending: str,
) -> _Attacked:
    hospital, number = task.label
    name = recording_name(task.attack, number, hospital)
    save_reconstruction(reconstruction, output, f"{name}_{task.surface}{ending}")
    outcome = truth.audit(reconstruction, hospital=hospital, round=number, criterion=assault.criterion)
    shown = truth.images[torch.arange(len(outcome.view)) * truth.views + outcome.view]
    return _Attacked(outcome, reconstruction, shown, rebuilt)


def _patients(groups: Sequence[Tensor]) -> Tensor:
    """Patients have one number in all hospitals; records that stand for themselves get one that no other has."""
    apart = [torch.where(own < 0, own - place * _APART, own) for place, own in enumerate(groups)]
    return torch.cat(apart)


def _law(audited: Iterable[_Attacked]) -> Any:
    """The unprocessed estimates beside their law; every probe has noise of its own."""
    estimates, images, noise, clipped, probes = [], [], [], [], []
    for place, one in enumerate(audited):
        raw, originals = one.reconstruction.unprocessed, one.rebuilt.images
        if raw is None or originals is None:
            continue
        estimates.append(raw)
        images.append(originals)
        noise.append(one.rebuilt.noise_multiplier / one.rebuilt.scales)
        clipped.append(one.rebuilt.clipped)
        probes.append(torch.full((len(raw),), place, dtype=torch.int64))
    if not estimates:
        return None
    return law_figures(
        torch.cat(estimates),
        torch.cat(images),
        noise_multiplier=torch.cat(noise),
        clipped=torch.cat(clipped),
        probes=torch.cat(probes),
    )


def draw(assault: Assault, name: str, columns: Sequence[Column], output: Path) -> Path:
    """Draw the best reconstructions beside their originals; the picture's file.

    Args:
        assault: Of which run.
        name: The picture's: attack and surface.
        columns: What it shows.
        output: The folder.
    """
    prepared = assault.prepared
    title = f"{name.replace('_', ' ')} attack on {prepared.dataset.name} at eps={prepared.config.eps:g}"
    path = output / f"{name}.png"
    save_figure(reconstruction_figure(columns, title=title, criterion=assault.criterion), path)
    save_columns(path.with_suffix(".npz"), columns)
    return path
