"""The attacks on what a run recorded, held against the truth: after a federation, or long afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from hbdp_fed.adversary import ATTACKS, CANDIDATES, REBUILDING, build_attack
from hbdp_fed.adversary.denoising import Denoiser
from hbdp_fed.audit import risk_summary
from hbdp_fed.audit.candidates import identification_figures, membership_figures
from hbdp_fed.audit.overlap_words import WHOEVER
from hbdp_fed.federation.parallel import run_tasks
from hbdp_fed.seeding import generator
from simulations.assault import Assault
from simulations.assess import protections
from simulations.denoising import NONE, trained_denoiser
from simulations.games import GamesTask, PlayedGames, games_tasks
from simulations.hospital_games import HospitalTask, hospital_entries, hospital_tasks, told, without_population
from simulations.overlap import overlap_summary
from simulations.rebuild_plan import rebuild_tasks
from simulations.rebuilding import RebuildTask
from simulations.rebuilt_entries import draw, rebuilt_entry


@dataclass(frozen=True)
class Risk:
    """What the attacks came to.

    Attributes:
        summary: The ``risk`` entry of the summary.
        seconds: By attack, the computing time of all its tasks.
        pictures: The files of the best reconstructions, by attack and surface.
        left_out: A line an attack and surface for which absences and failures left nothing to attack.
    """

    summary: Mapping[str, Any]
    seconds: Mapping[str, float]
    pictures: Mapping[str, Path]
    left_out: tuple[str, ...] = ()


def attack_and_audit(assault: Assault, output: Path) -> Risk:
    """Run all attacks on everything that was observed, then hold what they claim against the truth.

    Beside the attacks stand the bounds of the least protected hospital. Each attack gets an observation and a
    generator. Who was in a step is replayed from the hospital's random stream and met with the attack only here, but
    for what a threat model grants (:mod:`hbdp_fed.audit.grants`).

    Args:
        assault: What to attack.
        output: Where reconstructions and pictures are written.
    """
    rebuilding = [
        task for name in assault.attacks if ATTACKS[name].kind in REBUILDING for task in rebuild_tasks(assault, name)
    ]
    playing = _games(assault)
    about_hospitals = hospital_tasks(assault)
    tasks: list[RebuildTask | GamesTask | HospitalTask] = [*rebuilding, *playing, *about_hospitals]
    results: dict[int, Any] = {}
    work: Sequence[Callable[[], Any]] = tasks
    for place, result in run_tasks(work, engine=assault.prepared.engine):
        results[place] = result
        # About ten lines, so that a log file stays readable.
        if len(results) % max(1, len(tasks) // 10) == 0:
            assault.say(f"{len(results)} of {len(tasks)} attacks done ({_told(tasks[place])}, {result.seconds:.0f} s)")
    done = [results[place] for place in range(len(tasks))]
    denoiser = _denoiser(assault) if rebuilding else None
    entries: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    pictures: dict[str, Path] = {}
    for name in assault.attacks:
        started = time.perf_counter()
        mine = [(task, done[i]) for i, task in enumerate(rebuilding) if task.attack == name]
        for surface in assault.surfaces_of(name):
            found = [(task, rebuilt) for task, rebuilt in mine if task.surface == surface]
            if found:
                assault.say(f"comparing what {name} rebuilt with the originals")
                entry = rebuilt_entry(assault, name, surface, found, output, denoiser=denoiser)
                for picture, columns in entry.columns.items():
                    pictures[picture] = draw(assault, picture, columns, output)
                entries.setdefault(ATTACKS[name].threat_model.name, []).append(entry.figures)
        seconds[name] = sum(rebuilt.seconds for _, rebuilt in mine) + time.perf_counter() - started
    first = len(rebuilding) + len(playing)
    games = list(zip(playing, done[len(rebuilding) : first], strict=True))
    others = list(zip(about_hospitals, done[first:], strict=True))
    for name, entry, spent in chain(_game_entries(assault, games), hospital_entries(assault, others)):
        entries.setdefault(ATTACKS[name].threat_model.name, []).append(entry)
        seconds[name] = seconds.get(name, 0.0) + spent
    left_out = (*_without_target(assault, rebuilding, playing), *without_population(assault, about_hospitals))
    return Risk(summary=_summary(assault, entries), seconds=seconds, pictures=pictures, left_out=left_out)


def _denoiser(assault: Assault) -> Denoiser | None:
    prepared = assault.prepared
    if assault.adversary.denoiser != NONE:
        assault.say(f"training a denoiser ({assault.adversary.denoiser})")
    return trained_denoiser(
        assault.adversary.denoiser, prepared.dataset, seed=prepared.config.seed, device=prepared.device
    )


def _summary(assault: Assault, entries: Mapping[str, Sequence[Any]]) -> Mapping[str, Any]:
    guarantees = protections(assault.prepared)
    bounds = {
        "worst_case": max(guarantee.worst_case for guarantee in guarantees),
        "relaxed": max(guarantee.relaxed for guarantee in guarantees),
    }
    overlap = overlap_summary(assault.prepared)
    if overlap is not None and overlap["composed"] in WHOEVER:
        # Knowing less than the worst case can only make it harder: its bound holds for the relaxed model, too.
        bounds = {name: max(bound, overlap["worst_case_bound"]) for name, bound in bounds.items()}
    return risk_summary(entries, bounds, prior=assault.prepared.config.adversary.prior)


def _games(assault: Assault) -> list[GamesTask]:
    if not any(ATTACKS[name].kind in CANDIDATES for name in assault.attacks):
        return []
    return [
        task
        for surface in assault.surfaces
        for task in games_tasks(
            assault.prepared, assault.training, assault.folder, assault.adversary, surface, assault.observed(surface)
        )
    ]


def _without_target(assault: Assault, rebuilding: Sequence[RebuildTask], playing: Sequence[GamesTask]) -> Iterator[str]:
    """A line an attack and surface for which absences and failures left nothing, where there would have been."""
    for name in assault.attacks:
        kind = ATTACKS[name].kind
        if kind not in (*REBUILDING, *CANDIDATES):
            continue
        planned = _planned(assault, name)
        mine = [task for task in rebuilding if task.attack == name] if kind in REBUILDING else playing
        for surface in assault.surfaces_of(name):
            if planned and not any(task.surface == surface for task in mine):
                yield f"attack left out: {name} on {surface}: absences and failures left it no answers to read"


def _planned(assault: Assault, attack: str) -> bool:
    """Whether there would be something to read, if everybody had answered."""
    kind = ATTACKS[attack].kind
    if kind == "probe":
        return bool(assault.probes(attack))
    return kind in REBUILDING or bool(assault.prepared.observed)


def _game_entries(assault: Assault, games: Sequence[tuple[GamesTask, PlayedGames]]) -> Iterator[tuple[str, Any, float]]:
    """Name, entry and seconds of each attack that plays games; all of them play the same ones."""
    names = [name for name in assault.attacks if ATTACKS[name].kind in CANDIDATES]
    for name in names:
        attack = build_attack(name)
        for surface in assault.surfaces:
            found = [result for task, result in games if task.surface == surface]
            played = [one for result in found for one in result.played]
            if not played:
                continue
            if ATTACKS[name].kind == "identification":
                stream = generator(assault.prepared.config.seed, "adversary", name, surface)
                entry: Any = identification_figures(attack, surface, played, stream)
            else:
                entry = membership_figures(attack, surface, played, level=_LEVEL)
            yield name, entry, sum(result.seconds for result in found) / len(names)


_LEVEL = 0.1
"""The false positive rate at which a membership test is quoted; a hundred records show no smaller one well."""


def _told(task: RebuildTask | GamesTask | HospitalTask) -> str:
    if isinstance(task, GamesTask):
        return f"candidates of {len(task.games)} hospitals on {task.surface}"
    return f"{task.attack} on {task.label[0]}" if isinstance(task, RebuildTask) else told(task)
