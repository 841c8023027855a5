"""From a checked configuration to everything a run needs. Nothing is trained, and nothing written but the cache."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from hbdp_fed.data import (
    FederatedDataset,
    Hospital,
    ImageDataset,
    PartitionSettings,
    deal,
    held_elsewhere,
    pooled,
    restricted,
)
from hbdp_fed.data.cache import Loaded, load_kept
from hbdp_fed.dpsgd import noise_to_resolution
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.federation.aggregation import mean_shares
from hbdp_fed.federation.engine import EngineSettings
from hbdp_fed.federation.rounds import participants
from hbdp_fed.federation.server_step import ServerSettings
from hbdp_fed.models import Replacement, replaced_in, title_of
from hbdp_fed.privacy import Accountant, epsilon, plan_hospital
from hbdp_fed.privacy.site_policy import SitePolicy, Terms
from hbdp_fed.training import LocalSettings, ScheduleSettings, resolve_device, smallest_learning_rate
from hbdp_fed.training.pace import SiteProfile
from hbdp_fed.training.tasks import Task, task_called
from hbdp_fed.types import HospitalPlan, ModelSpec, OptimizerSettings, PrivacyBudget, Weights
from simulations import checks, recipes
from simulations.adversary_plan import (
    ALL,
    AUTO,
    AttackPlan,
    asked_for,
    check_hospitals,
    check_rounds,
    observed_rounds,
    plan_attacks,
)
from simulations.affording import affordable
from simulations.data_cache import cache_of
from simulations.limits import check_training
from simulations.model_setup import architecture_for, check_model, first_weights, own_settings, verify_model
from simulations.recipes import Hyperparameters
from simulations.schema import DataConfig, FederationConfig, RunConfig, TrainingConfig
from simulations.secure import check_secure_plan
from simulations.site_kinds import kinds_of_sites, scanner_shifts
from simulations.site_profiles import site_profiles
from simulations.units import Units, check_batches, units_of

TAKES_LONG = "a round of this model's gradients takes more than minutes"
"""Why games are not played, for people."""


@dataclass(frozen=True)
class Prepared:
    """A run that could start now.

    Attributes:
        config: The checked configuration.
        dataset: The data set as it was loaded.
        federated: The same, dealt over the hospitals.
        hyper: The hyperparameters after recipes.
        units: Whom the budget is for.
        task: What the model is asked for.
        local: How every hospital trains.
        server: The server's own optimiser, if it has one.
        accountant: By which the budget is meant.
        plans: A plan a hospital, calibrated to all of its steps.
        profiles: Each hospital's computer and line, in the same order.
        architecture: The model to train.
        replaced: What was changed in a net that came from elsewhere, so that it can be clipped per record.
        gradient_error: How far its records' gradients were from those that they have alone, relatively; None for a
            model of the project's own, which is not tried.
        initial: Its starting weights, float32.
        fresh: Which of them are not from ``model.weights``, where that file was given.
        engine: How to run.
        device: Where to compute.
        attacks: What the run is put to.
        observed: The training rounds that candidate games are about, ascending.
    """

    config: RunConfig
    dataset: ImageDataset
    federated: FederatedDataset
    hyper: Hyperparameters
    units: Units
    task: Task
    local: LocalSettings
    server: ServerSettings | None
    accountant: Accountant
    plans: tuple[HospitalPlan, ...]
    profiles: tuple[SiteProfile, ...]
    architecture: ModelSpec
    replaced: tuple[Replacement, ...]
    gradient_error: float | None
    initial: Weights
    fresh: tuple[str, ...]
    engine: EngineSettings
    device: torch.device
    attacks: AttackPlan
    observed: tuple[int, ...]

    @property
    def probe_rounds(self) -> Mapping[str, tuple[int, ...]]:
        """By attack, the numbers of its probes: rounds of one step after training."""
        each, first = self.config.adversary.probes, self.hyper.rounds + 1
        return {
            name: tuple(range(first + place * each, first + (place + 1) * each))
            for place, name in enumerate(self.attacks.probing)
        }

    @property
    def probes(self) -> int:
        """How many probes there are of all attacks."""
        return self.config.adversary.probes * len(self.attacks.probing)

    @property
    def unplayed(self) -> tuple[str, ...]:
        """The candidate games of which even one round takes too long, so that none is observed."""
        return () if self.observed else self.attacks.games

    @property
    def shares(self) -> tuple[float, ...]:
        """Each hospital's weight in the mean of updates; they add up to 1."""
        return mean_shares([plan.num_records for plan in self.plans], self.config.federation.weighting)


def prepare(config: RunConfig) -> Prepared:
    """Load, deal and calibrate.

    Raises:
        UserError: for everything that a user can mend.
    """
    checks.check(config)
    # Another number of threads gives other bits, here as in the hospitals.
    torch.set_num_threads(config.engine.threads_per_client)
    hyper = recipes.choose(config.training, config.data.recipes, config.eps)
    device = resolve_device(config.device)
    loaded = _loaded(config.data)
    dataset = loaded.dataset
    task = task_called(dataset.task)
    _check_subgroups(config.data.subgroups, dataset)
    federated = _members(_dealt(loaded, config), config.federation)
    units = units_of(config, dataset, federated)
    if config.training.epochs is not None:
        hyper = replace(hyper, rounds=recipes.rounds_for(config.training.epochs, hyper, units.by_site))
    check_training(hyper)
    check_batches(units, federated.hospitals, hyper)
    schedule = _schedule(config.training)
    server = _server_settings(config.federation, schedule)
    local = replace(
        _local_settings(config.training, hyper, task, schedule, server), records_per_patient=units.records_per_patient
    )
    attacks = plan_attacks(config, dataset, local, steps=hyper.local_steps, hospitals=len(federated.hospitals))
    check_hospitals(config.adversary.hospitals, [hospital.name for hospital in federated.hospitals])
    probes = config.adversary.probes * len(attacks.probing)
    if attacks.attacks:
        check_rounds(config.adversary.rounds, hyper.rounds + probes)
    names = [hospital.name for hospital in federated.hospitals]
    steps = _planned_steps(config, hyper, names, probes=probes)
    _check_faulty(config.federation, names)
    profiles = _profiles(config, federated, names)
    accountant = cast(Accountant, config.privacy.accountant)  # checked above
    plans = tuple(
        _plan(config, hyper, units, hospital, steps=steps[hospital.name], accountant=accountant)
        for hospital in federated.hospitals
    )
    architecture = architecture_for(config.model, dataset)
    _ask_for_consent(plans, config, task=dataset.task, model=title_of(architecture))
    check_model(architecture, dataset, local, max_grad_norm=hyper.max_grad_norm)
    gradient_error = verify_model(architecture, dataset, local)
    initial, fresh = first_weights(architecture, config.model, seed=config.seed)
    if config.federation.secure_aggregation:
        check_secure_plan(
            plans,
            local,
            weighting=config.federation.weighting,
            initial=initial,
            steps=hyper.local_steps,
            all_steps=hyper.rounds * hyper.local_steps,
            asked=_asked(config, hyper, names),
        )
    prepared = Prepared(
        config=config,
        dataset=dataset,
        federated=federated,
        hyper=hyper,
        units=units,
        task=task,
        local=local,
        server=server,
        accountant=accountant,
        plans=plans,
        profiles=profiles,
        architecture=architecture,
        replaced=replaced_in(architecture),
        gradient_error=gradient_error,
        initial=initial,
        fresh=fresh,
        engine=_engine_settings(config),
        device=device,
        attacks=attacks,
        observed=(),
    )
    return replace(prepared, observed=observed_by(prepared), attacks=affordable_by(prepared, attacks))


def _loaded(data: DataConfig) -> Loaded:
    """The data set, from where it is kept or from its files."""
    return load_kept(cache_of(data), data.name, root=checks.data_root(), options=own_settings(data, DataConfig))


def _profiles(config: RunConfig, federated: FederatedDataset, names: Sequence[str]) -> tuple[SiteProfile, ...]:
    """Each hospital's computer and line: of its kind, and as the settings say beside that."""
    return site_profiles(
        config.federation.profiles,
        names,
        known=(*federated.sites, *names),
        by_kind={name: kind.profile for name, kind in zip(federated.sites, kinds_of_sites(config), strict=False)},
    )


def _plan(
    config: RunConfig, hyper: Hyperparameters, units: Units, hospital: Hospital, *, steps: int, accountant: Accountant
) -> HospitalPlan:
    """A hospital's noise, calibrated to all of its steps."""
    return plan_hospital(
        name=hospital.name,
        num_records=hospital.size,
        budget=PrivacyBudget(epsilon=config.eps, delta=config.delta),
        expected_batch=units.batch_of(hospital, hyper),
        steps=steps,
        max_grad_norm=hyper.max_grad_norm,
        accountant=accountant,
        clip_without_noise=config.training.clip_without_noise,
        patients=units.patients_of(hospital),
    )


def _dealt(loaded: Loaded, config: RunConfig) -> FederatedDataset:
    """Who holds what: as the data set is dealt, or as real hospitals have said.

    Raises:
        SettingError: as :func:`hbdp_fed.data.deal`.
    """
    if config.federation.elsewhere:
        return held_elsewhere(loaded.dataset, config.federation.elsewhere)
    shares = tuple(kind.share for kind in kinds_of_sites(config)) or None
    return deal(
        loaded.dataset,
        clients=config.clients,
        partition=PartitionSettings(**vars(config.partition), shares=shares),
        scanner_shift=scanner_shifts(config),
        seed=config.seed,
        keep=loaded.keep,
    )


def _members(federated: FederatedDataset, federation: FederationConfig) -> FederatedDataset:
    """Who trains.

    Raises:
        SettingError: as :func:`hbdp_fed.data.restricted`.
    """
    if federation.members:
        federated = restricted(federated, federation.members)
    return pooled(federated) if federation.pooled else federated


def _engine_settings(config: RunConfig) -> EngineSettings:
    """How to run.

    Raises:
        SettingError: if there is no such device.
    """
    engine = config.engine
    on_gpu = resolve_device(config.device).type == "cuda"
    return EngineSettings(
        name=engine.name,
        workers=engine.workers,
        threads_per_client=engine.threads_per_client,
        gpus_per_client=0.0 if engine.gpus_per_client is None and not on_gpu else engine.gpus_per_client,
        address=engine.address,
        at_most=checks.number_of_hospitals(config),
    )


def _planned_steps(
    config: RunConfig, hyper: Hyperparameters, hospitals: Sequence[str], *, probes: int
) -> Mapping[str, int]:
    """The steps that each hospital's noise is calibrated to: of the rounds that it will be asked in, and of probes."""
    asked = Counter(name for names in _asked(config, hyper, hospitals) for name in names)
    # A hospital that is never asked has a plan all the same: one step, which it does not take.
    taken = {name: max(1, asked[name] * hyper.local_steps + probes) for name in hospitals}
    if config.privacy.steps is None:
        return taken
    most = max(taken.values())
    if config.privacy.steps < most:
        raise SettingError("privacy.steps", f"must be at least the {most} steps that the run takes, or null")
    return dict.fromkeys(hospitals, config.privacy.steps)


def _asked(config: RunConfig, hyper: Hyperparameters, hospitals: Sequence[str]) -> list[Sequence[str]]:
    """By training round, whom it asks."""
    fraction = config.federation.participation
    return [participants(config.seed, number, hospitals, fraction) for number in range(1, hyper.rounds + 1)]


def _ask_for_consent(plans: Sequence[HospitalPlan], config: RunConfig, *, task: str, model: str) -> None:
    """Every hospital holds its plan against its own policy."""
    wanted = config.federation.site_policy
    try:
        policy = SitePolicy(
            highest_epsilon=wanted.highest_epsilon,
            lowest_records=wanted.lowest_records,
            allowed_tasks=tuple(wanted.allowed_tasks) or (task,),
            allowed_models=tuple(wanted.allowed_models) or None,
            secure_noise=wanted.secure_noise,
        )
    except ValueError as error:
        raise SettingError("federation.site_policy", str(error)) from error
    secure = config.privacy.secure_noise
    refusals = {
        plan.name: policy.refusal(Terms(_planned_epsilon(plan, config), plan.num_records, task, model, secure))
        for plan in plans
    }
    refused = [f"{name} refuses: {reason}" for name, reason in refusals.items() if reason is not None]
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise SettingError("federation.site_policy", refused[0] + more)


def _planned_epsilon(plan: HospitalPlan, config: RunConfig) -> float:
    """By the accountant that budgets are meant by."""
    mechanism = plan.mechanism
    return epsilon(
        noise_multiplier=mechanism.noise_multiplier,
        sample_rate=mechanism.sample_rate,
        steps=mechanism.steps,
        delta=config.delta,
        accountant=cast(Accountant, config.privacy.accountant),
    )


def _check_faulty(federation: FederationConfig, hospitals: Sequence[str]) -> None:
    for fault in federation.faults:
        if fault["hospital"] not in hospitals:
            raise unknown_choice("federation.faults", fault["hospital"], hospitals)


def observed_by(prepared: Prepared) -> tuple[int, ...]:
    """The training rounds that the run's adversary sees in candidate games, if it plays any."""
    rounds, cost = prepared.hyper.rounds, _cost_of_step(prepared) * prepared.hyper.local_steps * len(prepared.plans)
    return observed_rounds(prepared.config.adversary, rounds=rounds, cost_of_round=cost)


def affordable_by(prepared: Prepared, attacks: AttackPlan) -> AttackPlan:
    """These attacks without those that nobody asked for by name and that take long on this run."""
    adversary = prepared.config.adversary
    steps = prepared.hyper.local_steps * (len(adversary.hospitals) or len(prepared.plans))
    return affordable(attacks, adversary, cost_of_step=_cost_of_step(prepared), steps=steps)


def _cost_of_step(prepared: Prepared) -> float:
    """Parameters x pixels."""
    parameters = sum(value.numel() for value in prepared.initial.values())
    pixels = math.prod(prepared.dataset.train.images.shape[2:])
    return float(parameters) * pixels


def check_games(prepared: Prepared) -> None:
    """That games which somebody named are played at all: ``auto`` leaves out what takes long, and a name is a wish.

    Raises:
        SettingError: if they would be left out.
    """
    adversary = prepared.config.adversary
    if asked_for(adversary.attack) in ([AUTO], [ALL]) or adversary.observed_rounds is not None or adversary.rounds:
        return
    if prepared.unplayed:
        raise SettingError(
            "adversary.observed_rounds",
            f"must be given for {', '.join(prepared.unplayed)}, since {TAKES_LONG}: "
            "1 plays on the last round, and fewer adversary.targets and adversary.candidates take less",
        )


def _check_subgroups(wanted: Sequence[str], dataset: ImageDataset) -> None:
    for name in wanted:
        if not dataset.test.attributes:
            raise SettingError("data.subgroups", f"{dataset.name} has no column to group records by: set it to []")
        if name not in dataset.test.attributes:
            raise unknown_choice("data.subgroups", name, dataset.test.attributes)


def _schedule(training: TrainingConfig) -> ScheduleSettings:
    return ScheduleSettings(name=training.schedule, warmup=training.warmup, final_fraction=training.final_fraction)


def _server_settings(federation: FederationConfig, schedule: ScheduleSettings) -> ServerSettings | None:
    if federation.server_optimizer == checks.NO_OPTIMIZER:
        return None
    return ServerSettings(
        optimizer=OptimizerSettings(
            name=federation.server_optimizer,
            learning_rate=federation.server_learning_rate,
            momentum=federation.server_momentum,
        ),
        schedule=schedule,
    )


def _local_settings(
    training: TrainingConfig,
    hyper: Hyperparameters,
    task: Task,
    schedule: ScheduleSettings,
    server: ServerSettings | None,
) -> LocalSettings:
    return LocalSettings(
        optimizer=OptimizerSettings(
            name=training.optimizer,
            learning_rate=hyper.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        ),
        # Where the server has an optimiser, the schedule is its own.
        schedule=schedule if server is None else ScheduleSettings(),
        augmentation=training.augmentation,
        loss=task.default_loss if training.loss == checks.AUTO else training.loss,
        class_weights=None if training.class_weights is None else tuple(training.class_weights),
        multiplicity=training.multiplicity,
        proximal=training.proximal,
        correction=training.correction,
        grad_mode=training.grad_mode,
        precision=training.precision,
        max_physical_batch=training.max_physical_batch,
    )


def resolution(prepared: Prepared) -> list[tuple[float, float]]:
    """A hospital's noise in one step's weight change over the resolution at the largest starting weight.

    The step is one of plain SGD, at the smallest learning rate of the whole training. The Adam family has no such
    figure before training: it stretches the noise where the gradient is small and shrinks it where it is large.

    Returns:
        A pair a hospital: against float32 (what sending float32 weights would have rounded to) and against float64
        (what is really sent).
    """
    largest = max(float(value.abs().max()) for value in prepared.initial.values())
    planned = prepared.hyper.rounds * prepared.hyper.local_steps
    rate = smallest_learning_rate(prepared.local, planned)
    ratios = []
    for plan in prepared.plans:
        m = plan.mechanism
        clip = m.max_grad_norm if m.noise_multiplier > 0 else 0.0
        std = rate * m.noise_multiplier * clip / plan.expected_batch
        ratios.append(
            (
                noise_to_resolution(noise_std=std, magnitude=largest, dtype=torch.float32),
                noise_to_resolution(noise_std=std, magnitude=largest, dtype=torch.float64),
            )
        )
    return ratios
