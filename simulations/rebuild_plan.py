"""Which observations an attack that rebuilds images is put to, and the records that each is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from hbdp_fed.adversary import ATTACKS, public_of_mean, record_scales
from hbdp_fed.audit import ReplayedBatch, all_trained, replay_batch
from hbdp_fed.seeding import generator
from hbdp_fed.training import round_progress
from hbdp_fed.types import ALL_HOSPITALS, PublicSideInformation, Surface
from simulations.adversary_plan import ALONE
from simulations.assault import Assault
from simulations.attack_settings import attack_settings
from simulations.probe import recording_name
from simulations.rebuilding import RebuildTask
from simulations.recorded import recorded_of
from simulations.side_information import AFTER_TRAINING, side_information
from simulations.sources import LastModel, ProbeAnswers, RoundAnswers, Source

_MOST_RECORDS = 1000
"""Records of a long round or of all training that reconstructions are compared with; more are drawn from at random."""


def rebuild_tasks(assault: Assault, attack: str) -> Iterator[RebuildTask]:
    """A task an observation: each hospital's answer, the mean of all, or the released model."""
    return _PLANS[ATTACKS[attack].kind](assault, attack)


def truth_of(assault: Assault, task: RebuildTask) -> list[ReplayedBatch]:
    """The records that a task's reconstructions are held against, of each hospital in its observation."""
    return [_TRUTHS[ATTACKS[task.attack].kind](assault, task, hospital) for hospital in task.scales]


def _of_probes(assault: Assault, attack: str) -> Iterator[RebuildTask]:
    granted = ATTACKS[attack].threat_model.perfect_algorithm
    for surface in assault.surfaces_of(attack):
        for number in assault.probes(attack):
            answered = assault.answered(number)
            for hospitals in _seen_together(assault, answered, surface):
                shares = _shares_among(assault, hospitals, answered)
                source = ProbeAnswers(
                    folder=assault.folder.observations,
                    recordings=tuple(recording_name(attack, number, name) for name in recorded_of(assault, hospitals)),
                    shares=shares,
                    surface=surface,
                )
                batches = tuple(replay_batch(assault.training, h, number) for h in hospitals) if granted else ()
                yield _task(assault, attack, surface, number, source, shares, batches)


def _of_round(assault: Assault, attack: str) -> Iterator[RebuildTask]:
    everybody = [plan.name for plan in assault.prepared.plans]
    for surface in assault.surfaces:
        for hospitals in _seen_together(assault, everybody, surface):
            number = assault.early_round(hospitals)
            if number is None:
                continue
            shares = _shares_among(assault, hospitals, hospitals)
            source = RoundAnswers(
                folder=assault.folder.path,
                architecture=assault.prepared.architecture,
                number=number,
                publics=_publics(assault, hospitals, number, surface),
                records={plan.name: plan.num_records for plan in assault.prepared.plans},
                shares=shares,
                surface=surface,
                training=assault.training.alone(hospitals[0]) if surface == "gradient" else None,
                summed=assault.secure,
            )
            yield _task(assault, attack, surface, number, source, shares)


def _of_model(assault: Assault, attack: str) -> Iterator[RebuildTask]:
    prepared = assault.prepared
    names = [plan.name for plan in prepared.plans]
    publics = {
        plan.name: side_information(prepared, plan, assault.public, progress=AFTER_TRAINING) for plan in prepared.plans
    }
    shares = _shares_among(assault, names, names)
    source = LastModel(
        folder=assault.folder.path,
        architecture=prepared.architecture,
        initial=prepared.initial,
        rounds=prepared.hyper.rounds,
        public=public_of_mean(publics, shares),
        records=sum(plan.num_records for plan in prepared.plans),
    )
    yield _task(assault, attack, "global_model", prepared.hyper.rounds, source, shares)


_PLANS: Mapping[str, Callable[[Assault, str], Iterator[RebuildTask]]] = {
    "probe": _of_probes,
    "round": _of_round,
    "model": _of_model,
}


def _drawn_by_probe(assault: Assault, task: RebuildTask, hospital: str) -> ReplayedBatch:
    return replay_batch(assault.training, hospital, task.label[1])


def _drawn_in_round(assault: Assault, task: RebuildTask, hospital: str) -> ReplayedBatch:
    steps = _steps_seen(assault, task.surface)
    most = max(1, _MOST_RECORDS // len(task.scales))
    return replay_batch(assault.training, hospital, task.label[1], steps=steps).at_most(
        most, views=task.multiplicity, generator=_stream(assault, hospital)
    )


def _trained_on(assault: Assault, task: RebuildTask, hospital: str) -> ReplayedBatch:
    training = assault.training
    return all_trained(
        training.records[training.index(hospital)],
        assault.prepared.federated.test,
        most=max(1, _MOST_RECORDS // len(task.scales)),
        generator=_stream(assault, hospital),
    )


_TRUTHS: Mapping[str, Callable[[Assault, RebuildTask, str], ReplayedBatch]] = {
    "probe": _drawn_by_probe,
    "round": _drawn_in_round,
    "model": _trained_on,
}


def _task(
    assault: Assault,
    attack: str,
    surface: Surface,
    number: int,
    source: Source,
    shares: Mapping[str, float],
    batches: tuple[ReplayedBatch, ...] = (),
) -> RebuildTask:
    prepared = assault.prepared
    expected = {plan.name: plan.expected_batch for plan in prepared.plans}
    first = next(iter(shares))
    return RebuildTask(
        attack=attack,
        settings=attack_settings(prepared, attack),
        surface=surface,
        source=source,
        scales=record_scales({name: expected[name] for name in shares}, shares),
        batches=batches,
        # Of the released model every view is as good as the record itself.
        multiplicity=1 if ATTACKS[attack].kind == "model" else prepared.local.multiplicity,
        max_physical_batch=prepared.local.max_physical_batch,
        seed=prepared.config.seed,
        label=(first if surface in ALONE else ALL_HOSPITALS, number),
    )


def _seen_together(assault: Assault, answered: Sequence[str], surface: Surface) -> list[tuple[str, ...]]:
    """Each attacked hospital by itself where hospitals are seen one by one; else all that answered."""
    if surface in ALONE:
        return [(name,) for name in answered if name in assault.hospitals()]
    return [tuple(answered)] if answered else []


def _shares_among(assault: Assault, hospitals: Sequence[str], answered: Sequence[str]) -> dict[str, float]:
    """The weights of these hospitals in the mean; only those that answered are in it."""
    plans = assault.prepared.plans
    shares = {plan.name: share for plan, share in zip(plans, assault.prepared.shares, strict=True)}
    whole = sum(shares[name] for name in answered) if len(answered) < len(plans) else 1.0
    return {hospital: shares[hospital] / whole for hospital in hospitals}


def _publics(
    assault: Assault, hospitals: Sequence[str], number: int, surface: Surface
) -> dict[str, PublicSideInformation]:
    hyper = assault.prepared.hyper
    progress = round_progress(number, rounds=hyper.rounds, local_steps=hyper.local_steps)
    steps = _steps_seen(assault, surface)
    plans = {plan.name: plan for plan in assault.prepared.plans}
    return {
        name: side_information(assault.prepared, plans[name], assault.public, progress=progress, steps=steps)
        for name in hospitals
    }


def _steps_seen(assault: Assault, surface: Surface) -> int:
    return 1 if surface == "gradient" else assault.prepared.hyper.local_steps


def _stream(assault: Assault, hospital: str) -> torch.Generator:
    return generator(assault.prepared.config.seed, "audit", hospital, "compared")
