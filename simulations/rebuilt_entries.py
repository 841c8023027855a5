"""Reconstructions held against the truth: an attack's figures on a surface, its pictures, its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, save_reconstruction
from hbdp_fed.audit import (
    Column,
    ProbeOutcome,
    attack_figures,
    audit_probe,
    best_columns,
    law_figures,
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
    """One observation with what was made of it, audited."""

    outcome: ProbeOutcome
    reconstruction: Reconstruction
    shown: Tensor
    rebuilt: Rebuilt


def rebuilt_entry(
    assault: Assault, attack: str, surface: Surface, found: Sequence[tuple[RebuildTask, Rebuilt]], output: Path
) -> tuple[Any, list[Column]]:
    """One attack's figures on one surface, and its best reconstructions."""
    audited = [_audited(assault, task, rebuilt, output) for task, rebuilt in found]
    columns = best_columns([(one.outcome, one.reconstruction, one.shown) for one in audited], assault.public)
    relaxed = ATTACKS[attack].threat_model.name == "relaxed"
    prior = assault.adversary.prior
    bound = None
    if relaxed:
        # Of a record that the step drew, which is what these figures are about: no sampling stands before it.
        noise = min(one.rebuilt.noise_multiplier for one in audited)
        bound = relaxed_coherent(prior=prior, noise_multiplier=noise, sample_rate=1.0, steps=1)
    entry = attack_figures(
        attack,
        surface,
        [one.outcome for one in audited],
        criterion=assault.criterion,
        bound=bound,
        bound_prior=prior if relaxed else None,
        law=_law(audited) if relaxed else None,
    )
    return entry, columns


def _audited(assault: Assault, task: RebuildTask, rebuilt: Rebuilt, output: Path) -> _Attacked:
    hospital, number = task.label
    name = recording_name(task.attack, number, hospital)
    save_reconstruction(rebuilt.reconstruction, output, f"{name}_{task.surface}")
    batches = truth_of(assault, task)
    originals = torch.cat([batch.images for batch in batches])
    outcome = audit_probe(
        rebuilt.reconstruction,
        originals,
        assault.public,
        hospital=hospital,
        round=number,
        controls=torch.cat([batch.controls for batch in batches]),
        views=task.multiplicity,
        groups=_patients([batch.groups for batch in batches]),
        control_groups=_patients([batch.control_groups for batch in batches]),
        criterion=assault.criterion,
    )
    shown = originals[torch.arange(len(outcome.view)) * task.multiplicity + outcome.view]
    return _Attacked(outcome, rebuilt.reconstruction, shown, rebuilt)


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


def draw(assault: Assault, attack: str, surface: Surface, columns: Sequence[Column], output: Path) -> Path:
    """Draw the best reconstructions beside their originals; the picture's file."""
    prepared = assault.prepared
    title = f"{attack.replace('_', ' ')} attack ({surface}) on {prepared.dataset.name} at eps={prepared.config.eps:g}"
    path = output / f"{attack}_{surface}.png"
    save_figure(reconstruction_figure(columns, title=title, criterion=assault.criterion), path)
    save_columns(path.with_suffix(".npz"), columns)
    return path
