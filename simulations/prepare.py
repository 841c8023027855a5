"""From a checked configuration to everything a run needs. Nothing is trained and nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch

from hbdp_fed.data import FederatedDataset, ImageDataset, PartitionSettings, deal, load_dataset
from hbdp_fed.dpsgd import clipped_summer, noise_to_resolution
from hbdp_fed.errors import SettingError
from hbdp_fed.federation.engine import EngineSettings, default_workers
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.privacy import Accountant, plan_hospital
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, ScheduleSettings, optimizer_at, resolve_device
from hbdp_fed.types import HospitalPlan, ModelSpec, OptimizerSettings, PrivacyBudget, Weights
from simulations import checks, recipes
from simulations.recipes import Hyperparameters
from simulations.schema import DataConfig, ModelConfig, RunConfig, TrainingConfig


@dataclass(frozen=True)
class Prepared:
    """A run that could start now.

    Attributes:
        config: The checked configuration.
        dataset: The data set as it was loaded.
        federated: The same, dealt over the hospitals.
        hyper: The hyperparameters after recipes.
        local: How every hospital trains.
        accountant: By which the budget is meant.
        plans: A plan a hospital, calibrated to all of its steps.
        architecture: The model to train.
        initial: Its starting weights, float32.
        engine: How to run.
        device: Where to compute.
        probes: One-step rounds of the malicious server.
    """

    config: RunConfig
    dataset: ImageDataset
    federated: FederatedDataset
    hyper: Hyperparameters
    local: LocalSettings
    accountant: Accountant
    plans: tuple[HospitalPlan, ...]
    architecture: ModelSpec
    initial: Weights
    engine: EngineSettings
    device: torch.device
    probes: int


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
    dataset = load_dataset(config.data.name, root=checks.data_root(), options=_own(config.data, DataConfig))
    federated = deal(
        dataset,
        clients=config.clients,
        partition=PartitionSettings(**vars(config.partition)),
        scanner_shift=config.data.scanner_shift,
        seed=config.seed,
    )
    probes = config.adversary.probes if config.adversary.attack != checks.NO_ATTACK else 0
    accountant = cast(Accountant, config.privacy.accountant)  # checked above
    plans = tuple(
        plan_hospital(
            name=hospital.name,
            num_records=len(hospital.records),
            budget=PrivacyBudget(epsilon=config.eps, delta=config.delta),
            expected_batch=hyper.expected_batch,
            steps=hyper.rounds * hyper.local_steps + probes,
            max_grad_norm=hyper.max_grad_norm,
            accountant=accountant,
        )
        for hospital in federated.hospitals
    )
    architecture = ModelSpec(
        name=config.model.name,
        args={
            "in_channels": dataset.train.images.shape[1],
            "num_classes": len(dataset.class_names),
            **_own(config.model, ModelConfig),
        },
    )
    _check_model(architecture, dataset, hyper, config.training.grad_mode)
    threads = config.engine.threads_per_client
    workers = config.engine.workers or default_workers(num_hospitals=config.clients, threads_per_client=threads)
    gpus = config.engine.gpus_per_client
    return Prepared(
        config=config,
        dataset=dataset,
        federated=federated,
        hyper=hyper,
        local=_local_settings(config.training, hyper),
        accountant=accountant,
        plans=plans,
        architecture=architecture,
        initial=initial_weights(build_model(architecture), generator(config.seed, "initial-weights")),
        engine=EngineSettings(
            name=config.engine.name,
            workers=workers,
            threads_per_client=threads,
            gpus_per_client=gpus if gpus is not None else (1.0 / workers if device.type == "cuda" else 0.0),
        ),
        device=device,
        probes=probes,
    )


def _check_model(architecture: ModelSpec, dataset: ImageDataset, hyper: Hyperparameters, grad_mode: str) -> None:
    """Let one blank record pass through the model and back, as every hospital's will.

    Raises:
        SettingError: if the model does not take images of this size, or cannot be clipped per record.
    """
    model = build_model(architecture)
    try:
        summer = clipped_summer(model, max_grad_norm=hyper.max_grad_norm, max_physical_batch=1, grad_mode=grad_mode)
        summer(torch.zeros_like(dataset.train.images[:1]), dataset.train.labels[:1])
    except (ValueError, RuntimeError) as error:
        raise SettingError(
            "model", f"{architecture.name} cannot be trained on {dataset.name}: {str(error).splitlines()[0]}"
        ) from error


def _local_settings(training: TrainingConfig, hyper: Hyperparameters) -> LocalSettings:
    return LocalSettings(
        optimizer=OptimizerSettings(
            name=training.optimizer,
            learning_rate=hyper.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        ),
        schedule=ScheduleSettings(
            name=training.schedule, warmup=training.warmup, final_fraction=training.final_fraction
        ),
        augmentation=training.augmentation,
        multiplicity=training.multiplicity,
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
    rate = min(optimizer_at(prepared.local, step / planned).learning_rate for step in range(planned + 1))
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


def _own(section: Any, base: type) -> Mapping[str, Any]:
    """The settings of a section that its base class does not have: those of this data set or model alone."""
    common = {item.name for item in fields(base)}
    return {item.name: getattr(section, item.name) for item in fields(section) if item.name not in common}
