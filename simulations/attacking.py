"""The attacks on what a run recorded, held against the truth: after a federation, or long afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, build_attack, record_scales, recorded_names, save_reconstruction
from hbdp_fed.audit import (
    Column,
    Criterion,
    ProbeOutcome,
    ReplayedBatch,
    SimulatedTraining,
    attack_figures,
    audit_probe,
    best_columns,
    law_figures,
    reconstruction_figure,
    replay_batch,
    risk_summary,
    save_columns,
    save_figure,
)
from hbdp_fed.audit.candidates import identification_figures, membership_figures
from hbdp_fed.audit.overlap_words import WHOEVER
from hbdp_fed.data import as_floats
from hbdp_fed.errors import SettingError
from hbdp_fed.federation.parallel import run_tasks
from hbdp_fed.privacy import relaxed_coherent
from hbdp_fed.seeding import generator
from hbdp_fed.types import ALL_HOSPITALS, Reconstruction, Surface
from simulations.adversary_plan import ALONE, attack_settings, surfaces_seen
from simulations.assess import protections
from simulations.games import GamesTask, PlayedGames, games_tasks
from simulations.overlap import overlap_summary
from simulations.prepare import Prepared
from simulations.probe import recording_name
from simulations.rebuilding import RebuildTask, Rebuilt
from simulations.run_folder import RunFolder
from simulations.schema import AdversaryConfig


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


@dataclass(frozen=True)
class _Attacked:
    """One observation with what was made of it, audited."""

    outcome: ProbeOutcome
    reconstruction: Reconstruction
    shown: Tensor
    rebuilt: Rebuilt


@dataclass(frozen=True)
class Assault:
    """Everything that attacks on one run need.

    Attributes:
        prepared: The run, as it was planned.
        folder: Where it recorded.
        attacks: Which, in the registry's order; what each needs is there (see :func:`check_recorded`).
        say: Tells people what goes on.
    """

    prepared: Prepared
    folder: RunFolder
    attacks: tuple[str, ...]
    say: Callable[[str], None]

    @property
    def adversary(self) -> AdversaryConfig:
        """How to attack."""
        return self.prepared.config.adversary

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Where the adversary stands."""
        return surfaces_seen(self.adversary, secure=self.secure)

    @property
    def secure(self) -> bool:
        """Whether nothing but sums was recorded."""
        return self.prepared.config.federation.secure_aggregation

    @cached_property
    def training(self) -> SimulatedTraining:
        """The federation, whose every draw is known."""
        prepared = self.prepared
        return SimulatedTraining(
            seed=prepared.config.seed,
            architecture=prepared.architecture,
            local=prepared.local,
            rounds=prepared.hyper.rounds,
            local_steps=prepared.hyper.local_steps,
            plans=prepared.plans,
            records=tuple(hospital.records for hospital in prepared.federated.hospitals),
            shares=prepared.shares,
            device=prepared.device,
        )

    @cached_property
    def public(self) -> Tensor:
        """The images that the adversary had anyway."""
        return as_floats(self.prepared.federated.val.images)

    @property
    def criterion(self) -> Criterion:
        """What counts as rebuilt."""
        first, *others = self.adversary.thresholds
        return Criterion(ssim=first, also=tuple(others))

    def probes(self, attack: str) -> tuple[int, ...]:
        """The rounds of an attack's probes that are attacked."""
        numbers = self.prepared.probe_rounds.get(attack, ())
        wanted = self.adversary.rounds
        return tuple(number for number in numbers if not wanted or number in wanted)

    def hospitals(self) -> list[str]:
        """Whose records are attacked."""
        return list(self.adversary.hospitals) or [plan.name for plan in self.prepared.plans]

    @cached_property
    def silent(self) -> frozenset[tuple[str, int]]:
        """Hospitals of which a round or probe has no answer, with its number: it failed, came late, or never was."""
        return self.folder.failed()

    def observed_of(self, hospital: str, surface: Surface) -> tuple[int, ...]:
        """The training rounds that games about a hospital are about, seen from a surface, ascending.

        Where hospitals are seen one by one, those that it answered; where only their mean is seen, those that every
        hospital answered: the games take each one for part of every round.
        """
        seen = self.prepared.observed
        if surface in ALONE:
            return tuple(number for number in seen if (hospital, number) not in self.silent)
        incomplete = {number for _, number in self.silent}
        if surface == "global_model" and self.adversary.only_last_model:
            # Everything that ever was averaged is one release.
            whole = incomplete.isdisjoint(range(1, self.prepared.hyper.rounds + 1))
            return seen if whole else ()
        return tuple(number for number in seen if number not in incomplete)

    def observed(self, surface: Surface) -> Mapping[str, tuple[int, ...]]:
        """By hospital whose records are attacked, the rounds of :meth:`observed_of`; without those that have none."""
        found = {name: self.observed_of(name, surface) for name in self.hospitals()}
        return {name: rounds for name, rounds in found.items() if rounds}

    def answered(self, number: int) -> list[str]:
        """The hospitals that answered a probe, in their order."""
        return [plan.name for plan in self.prepared.plans if (plan.name, number) not in self.silent]


def check_recorded(assault: Assault) -> None:
    """Refuse what cannot be attacked because nobody recorded it.

    Raises:
        SettingError: naming what there is.
    """
    names = set(recorded_names(assault.folder.observations))
    for attack in assault.attacks:
        obstacle = _unrecorded(assault, attack, names)
        if obstacle is not None:
            raise SettingError(*obstacle)


def only_recorded(assault: Assault) -> tuple[Assault, tuple[str, ...]]:
    """The same without the attacks that :func:`check_recorded` would refuse, and why each of those is left out."""
    names = set(recorded_names(assault.folder.observations))
    obstacles = {name: _unrecorded(assault, name, names) for name in assault.attacks}
    left_out = tuple(f"{name}: {found[1]}" for name, found in obstacles.items() if found is not None)
    return replace(assault, attacks=tuple(name for name, found in obstacles.items() if found is None)), left_out


def _unrecorded(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    """The setting by which there is nothing for an attack to read, and why; None if there is something."""
    if ATTACKS[attack].kind != "probe":
        if not assault.prepared.observed:
            return "observed_rounds", f"no training round is left to {attack}: 0 takes all that rounds names"
        games = [assault.observed(surface) for surface in assault.surfaces]
        if not any(games):
            return (
                "surfaces",
                f"absences and failures leave {attack} no round with the answers that they need",
            )
        for number in sorted({number for found in games for rounds in found.values() for number in rounds}):
            if not (assault.folder.observations / f"round-{number:04d}").is_dir():
                return "attack", f"the updates of round {number}, which {attack} is about, were not recorded"
        return None
    numbers = assault.probes(attack)
    needed = {
        recording_name(attack, number, hospital)
        for number in numbers
        for hospital in _recorded_of(assault, assault.answered(number))
        if hospital in (*assault.hospitals(), ALL_HOSPITALS)
    }
    if needed and needed <= names:
        return None
    if numbers and not needed:
        return "attack", f"{', '.join(assault.hospitals())}: no answer to the probes of {attack}, by absence or failure"
    rounds = numbers or assault.adversary.rounds
    asked = f" in round {', '.join(map(str, rounds))}" if rounds else ""
    sent = [f"{name} ({', '.join(map(str, found))})" for name, found in _recorded_probes(assault, names)]
    return "attack", (
        f"no probe of {attack}{asked} was recorded; probes are planned before training (adversary.attack); "
        f"recorded with rounds: {', '.join(sent) or 'none'}"
    )


def attack_and_audit(assault: Assault, output: Path) -> Risk:
    """Run all attacks on everything that was observed, then hold what they claim against the truth.

    Beside the attacks stand the bounds of the least protected hospital. Each attack gets an observation and a
    generator. Who was in a step is replayed from the hospital's random stream and met with the attack only here, but
    for what a threat model grants (:mod:`hbdp_fed.audit.grants`).

    Args:
        assault: What to attack.
        output: Where reconstructions and pictures are written.
    """
    rebuilding = [task for name in assault.attacks if ATTACKS[name].kind == "probe" for task in _rebuild(assault, name)]
    playing = _games(assault)
    tasks: list[RebuildTask | GamesTask] = [*rebuilding, *playing]
    results: dict[int, Any] = {}
    work: Sequence[Callable[[], Any]] = tasks
    for place, result in run_tasks(work, engine=assault.prepared.engine):
        results[place] = result
        # About ten lines, so that a log file stays readable.
        if len(results) % max(1, len(tasks) // 10) == 0:
            assault.say(f"{len(results)} of {len(tasks)} attacks done ({_told(tasks[place])}, {result.seconds:.0f} s)")
    done = [results[place] for place in range(len(tasks))]
    entries: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    pictures: dict[str, Path] = {}
    for name in assault.attacks:
        started = time.perf_counter()
        mine = [(task, done[i]) for i, task in enumerate(rebuilding) if task.attack == name]
        for surface in assault.surfaces:
            found = [(task, rebuilt) for task, rebuilt in mine if task.surface == surface]
            if found:
                assault.say(f"comparing what {name} rebuilt with the originals")
                entry, columns = _rebuilt_entry(assault, name, surface, found, output)
                pictures[f"{name}_{surface}"] = _draw(assault, name, surface, columns, output)
                entries.setdefault(ATTACKS[name].threat_model.name, []).append(entry)
        seconds[name] = sum(rebuilt.seconds for _, rebuilt in mine) + time.perf_counter() - started
    games = list(zip(playing, done[len(rebuilding) :], strict=True))
    for name, entry, spent in _game_entries(assault, games):
        entries.setdefault(ATTACKS[name].threat_model.name, []).append(entry)
        seconds[name] = seconds.get(name, 0.0) + spent
    left_out = tuple(_without_target(assault, rebuilding, playing))
    return Risk(summary=_summary(assault, entries), seconds=seconds, pictures=pictures, left_out=left_out)


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


def _recorded_of(assault: Assault, hospitals: Sequence[str]) -> Sequence[str]:
    """Under whose names the answers of these hospitals to a probe were recorded."""
    return (ALL_HOSPITALS,) if assault.secure and hospitals else hospitals


def _rebuild(assault: Assault, attack: str) -> Iterator[RebuildTask]:
    """A task an observation: each hospital's answer, or the mean of all."""
    plans, prepared = assault.prepared.plans, assault.prepared
    shares = {plan.name: share for plan, share in zip(plans, prepared.shares, strict=True)}
    batches = {plan.name: plan.expected_batch for plan in plans}
    granted = ATTACKS[attack].threat_model.perfect_algorithm
    for surface in assault.surfaces:
        for number in assault.probes(attack):
            answered = assault.answered(number)
            attacked = [name for name in answered if name in assault.hospitals()]
            for hospitals in [(name,) for name in attacked] if surface in ALONE else [tuple(answered)]:
                # Only those that answered are in the mean.
                whole = sum(shares[name] for name in answered) if len(answered) < len(plans) else 1.0
                counted = {hospital: shares[hospital] / whole for hospital in hospitals}
                yield RebuildTask(
                    attack=attack,
                    settings=attack_settings(prepared.config, str(prepared.device))[attack],
                    surface=surface,
                    observations=assault.folder.observations,
                    recordings=tuple(recording_name(attack, number, name) for name in _recorded_of(assault, hospitals)),
                    shares=counted,
                    scales=record_scales({name: batches[name] for name in hospitals}, counted),
                    batches=tuple(replay_batch(assault.training, h, number) for h in hospitals) if granted else (),
                    multiplicity=prepared.local.multiplicity,
                    max_physical_batch=prepared.local.max_physical_batch,
                    seed=prepared.config.seed,
                    label=(hospitals[0] if surface in ALONE else ALL_HOSPITALS, number),
                )


def _rebuilt_entry(
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
    batches = list(_batches(assault, task, number))
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


def _batches(assault: Assault, task: RebuildTask, number: int) -> Iterator[ReplayedBatch]:
    for hospital in task.shares:
        yield replay_batch(assault.training, hospital, number)


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


def _draw(assault: Assault, attack: str, surface: Surface, columns: Sequence[Column], output: Path) -> Path:
    prepared = assault.prepared
    title = f"{attack.replace('_', ' ')} attack ({surface}) on {prepared.dataset.name} at eps={prepared.config.eps:g}"
    path = output / f"{attack}_{surface}.png"
    save_figure(reconstruction_figure(columns, title=title, criterion=assault.criterion), path)
    save_columns(path.with_suffix(".npz"), columns)
    return path


def _games(assault: Assault) -> list[GamesTask]:
    if not any(ATTACKS[name].kind != "probe" for name in assault.attacks):
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
        probing = ATTACKS[name].kind == "probe"
        planned = assault.probes(name) if probing else assault.prepared.observed
        for surface in assault.surfaces:
            mine = [task for task in rebuilding if task.attack == name] if probing else playing
            if planned and not any(task.surface == surface for task in mine):
                yield f"attack left out: {name} on {surface}: absences and failures left it no answers to read"


def _game_entries(assault: Assault, games: Sequence[tuple[GamesTask, PlayedGames]]) -> Iterator[tuple[str, Any, float]]:
    """Name, entry and seconds of each attack that plays games; all of them play the same ones."""
    names = [name for name in assault.attacks if ATTACKS[name].kind != "probe"]
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


_APART = 2**40
"""More than any hospital has records."""

_LEVEL = 0.1
"""The false positive rate at which a membership test is quoted; a hundred records show no smaller one well."""


def _recorded_probes(assault: Assault, names: set[str]) -> Iterator[tuple[str, Sequence[int]]]:
    for attack, numbers in assault.prepared.probe_rounds.items():
        there = [n for n in numbers if any(name.startswith(f"{attack}_round-{n:04d}_") for name in names)]
        if there:
            yield attack, there


def _told(task: RebuildTask | GamesTask) -> str:
    if isinstance(task, GamesTask):
        return f"candidates of {len(task.games)} hospitals on {task.surface}"
    return f"{task.attack} on {task.label[0]}"
