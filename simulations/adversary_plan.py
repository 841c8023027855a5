"""Which attacks a run is put to: what was asked for, checked, or what applies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.adversary import ATTACKS, CANDIDATES, REBUILDING, SURFACES, build_attack
from hbdp_fed.adversary.property_inference import FEWEST
from hbdp_fed.audit.candidates import LINEAR
from hbdp_fed.data import ImageDataset
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.federation.deployment import SUPERLINK
from hbdp_fed.training import NO_CORRECTION, LocalSettings
from hbdp_fed.types import Surface
from simulations.attack_options import checked_options, options_of
from simulations.denoising import DENOISERS, check_denoiser
from simulations.hospital_games_plan import OF_HOSPITALS, obstacle_of_hospitals
from simulations.schema import AdversaryConfig, RunConfig
from simulations.tailoring import obstacle_of_tailoring

AUTO, ALL, NONE = "auto", "all", "none"
"""In place of attacks by name: all that apply and take seconds, all that apply, and none."""

ALONE: tuple[Surface, ...] = ("gradient", "update")
"""The surfaces that show hospitals one by one."""

_REAL = "real hospitals are not attacked; a simulation of the same settings is"

_CLASS_TASKS = ("binary", "multiclass")

_AFFORDABLE = 3e10
"""Parameters x pixels x hospital steps whose candidate games take about two minutes on two cores: a forward and a
backward pass cost about as many operations a record as parameters x pixels, up to a constant of the architecture."""

_LEAST = {"probes": 0, "bins": 2, "candidates": 2, "targets": 1, "populations": 2, "shadows": FEWEST}
"""What some of the adversary's settings must be at least."""


@dataclass(frozen=True)
class AttackPlan:
    """The attacks of a run.

    Attributes:
        attacks: Names, in the registry's order.
        left_out: Why an attack that would apply is not among them, in words for people.
    """

    attacks: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def probing(self) -> tuple[str, ...]:
        """Those that hand out a model of their own."""
        return tuple(name for name in self.attacks if ATTACKS[name].kind == "probe")

    @property
    def games(self) -> tuple[str, ...]:
        """Those that play the candidate games about training rounds."""
        return tuple(name for name in self.attacks if ATTACKS[name].kind in CANDIDATES)


def asked_for(wanted: Any) -> list[str]:
    """The words of ``adversary.attack``, which is one or a list of them, checked.

    Raises:
        SettingError: if there is no such attack, or ``auto``, ``all`` or ``none`` stands beside others.
    """
    words = [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, list | tuple) else [str(wanted)]
    known = (AUTO, ALL, NONE, *ATTACKS)
    for word in words:
        if word not in known:
            raise unknown_choice("adversary.attack", str(word), known)
    if len(words) > 1 and {AUTO, ALL, NONE} & set(words):
        raise SettingError("adversary.attack", f"{AUTO}, {ALL} and {NONE} stand alone, got {', '.join(words)}")
    return words


def surfaces_seen(adversary: AdversaryConfig, *, secure: bool) -> tuple[Surface, ...]:
    """What the adversary sees: what ``adversary.surfaces`` says, which is one word or a list of them.

    Args:
        adversary: Its settings.
        secure: Whether updates are summed securely; ``auto`` is then the sum, and otherwise every hospital's gradients.
    """
    words: list[Any] = [adversary.surfaces] if isinstance(adversary.surfaces, str) else list(adversary.surfaces)
    if words == [AUTO]:
        return ("aggregate",) if secure else ("gradient",)
    return tuple(words)


def plan_attacks(
    config: RunConfig, dataset: ImageDataset, local: LocalSettings, *, steps: int, hospitals: int
) -> AttackPlan:
    """The attacks of a run before anything is trained.

    Args:
        config: Checked.
        dataset: What is trained on.
        local: How hospitals train.
        steps: Steps between two aggregations.
        hospitals: How many train.

    Raises:
        SettingError: if an attack that was asked for cannot work.
    """
    words = asked_for(config.adversary.attack)
    if words == [NONE]:
        return AttackPlan(())
    if config.engine.name == SUPERLINK:
        if words == [AUTO]:
            return AttackPlan((), (f"all attacks: {_REAL}",))
        raise SettingError("adversary.attack", f"must be {NONE} or {AUTO}: {_REAL}")
    wanted = _wanted(words)
    obstacles = {name: _obstacle(name, config, dataset, local, steps, hospitals) for name in wanted}
    if words not in ([AUTO], [ALL]):
        for obstacle in obstacles.values():
            if obstacle is not None:
                raise SettingError(*obstacle)
    if any(ATTACKS[name].kind in REBUILDING for name in wanted if obstacles[name] is None):
        check_denoiser(config.adversary.denoiser, dataset)
    # What the data rules out is no news; what a setting does is.
    told = tuple(
        f"{name}: {obstacle[0]} {obstacle[1]}"
        for name, obstacle in obstacles.items()
        if obstacle is not None and obstacle[0] != "adversary.attack"
    )
    return AttackPlan(tuple(name for name in wanted if obstacles[name] is None), told)


def _wanted(words: Sequence[str]) -> list[str]:
    if words == [AUTO]:
        return [name for name, entry in ATTACKS.items() if not entry.slow]
    return list(ATTACKS) if words == [ALL] else [name for name in ATTACKS if name in words]


def observed_rounds(adversary: AdversaryConfig, *, rounds: int, cost_of_round: float) -> tuple[int, ...]:
    """Which training rounds the worst case sees: the last ones; all, some number, or as many as take minutes.

    Args:
        adversary: ``observed_rounds`` and ``rounds``.
        rounds: Of training.
        cost_of_round: Parameters x pixels x steps of all hospitals.

    Returns:
        Ascending; empty where even one round costs too much and nobody asked for it.
    """
    wanted = adversary.observed_rounds
    if wanted is None:
        count = min(rounds, math.floor(_AFFORDABLE / cost_of_round))
    else:
        count = rounds if wanted == 0 else min(wanted, rounds)
    last = range(rounds - count + 1, rounds + 1)
    training = [number for number in adversary.rounds if number <= rounds]
    return tuple(number for number in last if not training or number in training)


def check_adversary(adversary: AdversaryConfig, *, secure: bool = False) -> None:
    """What can be checked without data.

    Args:
        adversary: Its settings.
        secure: Whether updates are summed securely.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    asked_for(adversary.attack)
    surfaces = _checked_surfaces(adversary, secure=secure)
    for key, least in _LEAST.items():
        value = getattr(adversary, key)
        if value < least:
            raise SettingError(f"adversary.{key}", f"must be at least {least}, got {value}")
    if adversary.observed_rounds is not None and adversary.observed_rounds < 0:
        raise SettingError(
            "adversary.observed_rounds", f"must be at least 0 (all), or null, got {adversary.observed_rounds}"
        )
    if not adversary.thresholds or not all(0 < threshold < 1 for threshold in adversary.thresholds):
        raise SettingError(
            "adversary.thresholds", f"must be one or more SSIMs between 0 and 1, got {adversary.thresholds}"
        )
    if not 0 < adversary.prior < 1:
        raise SettingError("adversary.prior", f"must lie strictly between 0 and 1, got {adversary.prior:g}")
    if adversary.denoiser not in (NONE, *DENOISERS):
        raise unknown_choice("adversary.denoiser", adversary.denoiser, (NONE, *DENOISERS))
    checked_options(adversary.options)
    if adversary.only_last_model and "global_model" not in surfaces:
        raise SettingError("adversary.only_last_model", "is about the surface global_model: add it to surfaces")


def _checked_surfaces(adversary: AdversaryConfig, *, secure: bool) -> tuple[Surface, ...]:
    if not isinstance(adversary.surfaces, str | list | tuple):
        raise unknown_choice("adversary.surfaces", str(adversary.surfaces), (AUTO, *SURFACES))
    surfaces = surfaces_seen(adversary, secure=secure)
    for surface in surfaces:
        if surface not in SURFACES:
            raise unknown_choice("adversary.surfaces", str(surface), (AUTO, *SURFACES))
    if not surfaces or len(set(surfaces)) < len(surfaces):
        raise SettingError("adversary.surfaces", f"must be different ones of: {', '.join(SURFACES)}")
    alone = [surface for surface in surfaces if surface in ALONE]
    if secure and alone:
        raise SettingError(
            "adversary.surfaces",
            f"{' and '.join(alone)} cannot be seen under federation.secure_aggregation, which shows nobody a single "
            "hospital's update; choose aggregate, global_model or both, or auto",
        )
    return surfaces


def check_rounds(wanted: Sequence[int], last: int) -> None:
    """Whether the rounds that are attacked exist."""
    for number in wanted:
        if not 1 <= number <= last:
            raise SettingError("adversary.rounds", f"must be from 1 to {last}, the probes included; got {number}")


def check_hospitals(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Whether the hospitals whose records are attacked exist."""
    for name in wanted:
        if name not in known:
            raise unknown_choice("adversary.hospitals", name, known)
    if len(set(wanted)) < len(wanted):
        # A hospital that is attacked twice would count its records twice.
        raise SettingError("adversary.hospitals", f"must be different ones, got {', '.join(wanted)}")


def _obstacle(
    name: str, config: RunConfig, dataset: ImageDataset, local: LocalSettings, steps: int, hospitals: int
) -> tuple[str, str] | None:
    """The setting that rules an attack out, and how; None if nothing does."""
    entry = ATTACKS[name]
    kind = entry.kind
    if kind in OF_HOSPITALS:
        return obstacle_of_hospitals(name, config.adversary, dataset, local, surfaces=_seen_alone(config))
    if entry.of_records and local.records_per_patient is not None:
        working = ", ".join(other for other, its in ATTACKS.items() if not its.of_records)
        return (
            "privacy.unit",
            f"must be record for {name}, which reads an image out of its own clipped gradient, and of a patient only "
            f"the mean over all records is clipped and sent; with patients these work: {working}",
        )
    task, dims = dataset.task, dataset.train.images.dim() - 2
    if entry.of_classes and (task not in _CLASS_TASKS or dims != 2):
        what = "images" if dims == 2 else "volumes"
        return (
            "adversary.attack",
            f"{name} rebuilds images of {' and '.join(_CLASS_TASKS)} tasks; this is {task} of {what}: "
            "leave it out, or set auto or none",
        )
    if kind in REBUILDING:
        obstacle = _obstacle_of_public(name, dataset, options_of(config.adversary.options, name))
        if obstacle is not None or kind == "model":
            return obstacle
    if kind == "probe":
        return _obstacle_of_tailoring(name, config, dataset, local, hospitals) or _obstacle_of_mean(
            config, local, steps=1
        )
    if kind in CANDIDATES:
        decoys, of = _decoys(dataset, local)
        if config.adversary.candidates - 1 > decoys:
            return "adversary.candidates", f"must be at most {decoys + 1}: decoys come from the {decoys} test {of}"
    return _obstacle_of_rounds(name, config, local) or _obstacle_of_mean(config, local, steps=steps)


def _seen_alone(config: RunConfig) -> Sequence[Surface]:
    """The surfaces that show hospitals one by one, of those that are seen."""
    seen = surfaces_seen(config.adversary, secure=config.federation.secure_aggregation)
    return [surface for surface in seen if surface in ALONE]


def _obstacle_of_rounds(name: str, config: RunConfig, local: LocalSettings) -> tuple[str, str] | None:
    """Where what training rounds released is not there, or cannot be taken apart."""
    if config.federation.record != "all":
        # Presets of long runs keep neither, and two messages one after the other would be one too many.
        also = "" if config.federation.checkpoints == 0 else ", and federation.checkpoints 0,"
        return "federation.record", f"must be all{also} for {name}, which is about the updates of training"
    if config.federation.participation != 1:
        return "federation.participation", f"must be 1 for {name}, which takes every hospital for part of every round"
    if config.federation.checkpoints != 0:
        return "federation.checkpoints", f"must be 0 (all kept) for {name}, which is about every round"
    seen = surfaces_seen(config.adversary, secure=config.federation.secure_aggregation)
    if local.correction != NO_CORRECTION and set(seen) & {"aggregate", "global_model"}:
        # What was added to whose gradients is read out of single updates, and the server tells everybody c besides.
        return (
            "adversary.surfaces",
            f"must be gradient or update for {name} with training.correction={local.correction}: who sees only means "
            "does not know the hospitals' control variates",
        )
    if local.correction != NO_CORRECTION and ATTACKS[name].kind == "round":
        return "training.correction", f"must be {NO_CORRECTION} for {name}, which takes a hospital's steps by itself"
    # Steps are seen by taking them again, noise included: a single one, too.
    if "gradient" in seen and config.privacy.secure_noise:
        return (
            "privacy.secure_noise",
            f"leaves no way to take the single steps of {name}'s surface gradient again: "
            "set adversary.surfaces=[update]",
        )
    return None


def _decoys(dataset: ImageDataset, local: LocalSettings) -> tuple[int, str]:
    """How many decoys the test split has for a game, and what they are: as the targets, records or patients."""
    if local.records_per_patient is None:
        return len(dataset.test), "records"
    groups = dataset.test.groups
    return 0 if groups is None else len(groups.unique()), f"{dataset.group}s"


def _obstacle_of_public(name: str, dataset: ImageDataset, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where the public images are too few or too small for an attack."""
    try:
        build_attack(name, **options).check_public(dataset.val.images)
    except SettingError as error:
        return error.key, error.problem
    return None


def _obstacle_of_tailoring(
    name: str, config: RunConfig, dataset: ImageDataset, local: LocalSettings, hospitals: int
) -> tuple[str, str] | None:
    """Where there is no use in a model for each hospital, or no way to read the answers."""
    if not ATTACKS[name].tailored:
        return None
    return obstacle_of_tailoring(
        name,
        seen=surfaces_seen(config.adversary, secure=config.federation.secure_aggregation),
        weight_decay=local.optimizer.weight_decay,
        bins=config.adversary.bins,
        pixels=dataset.train.images[0].numel(),
        hospitals=hospitals,
    )


def _obstacle_of_mean(config: RunConfig, local: LocalSettings, *, steps: int) -> tuple[str, str] | None:
    """Where optimisers make more of updates than a sum."""
    surfaces = set(surfaces_seen(config.adversary, secure=config.federation.secure_aggregation))
    means = surfaces & {"aggregate", "global_model"}
    if means and local.optimizer.name != LINEAR:
        verb = "need" if len(means) > 1 else "needs"
        return "adversary.surfaces", f"{' and '.join(sorted(means))} {verb} training.optimizer={LINEAR}"
    if steps > 1 and local.proximal and surfaces - {"gradient"}:
        return "training.proximal", f"must be 0 for the surfaces {' and '.join(sorted(surfaces - {'gradient'}))}"
    if steps > 1 and "update" in surfaces and local.optimizer.name != LINEAR:
        return "adversary.surfaces", f"update with training.local_steps={steps} needs training.optimizer={LINEAR}"
    if means and config.federation.aggregation != "mean":
        return "federation.aggregation", f"must be mean for the surfaces {' and '.join(sorted(means))}"
    if "global_model" in surfaces and config.federation.server_optimizer != NONE:
        return "adversary.surfaces", "global_model needs federation.server_optimizer=none; aggregate is the same sum"
    return None
