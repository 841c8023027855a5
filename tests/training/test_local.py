"""Local training against a hand-written loop, and what its delta keeps of the noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hbdp_fed.dpsgd import GRAD_MODES, clipped_summer, gaussian_noise, poisson_batches, seeded_noise
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import (
    LocalResult,
    LocalSettings,
    LocalStep,
    Progress,
    ScheduleSettings,
    learning_rate_factor,
    train_locally,
    views,
)
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
IMAGES = torch.rand(30, 1, 12, 12, generator=generator(0, "images"))
LABELS = torch.randint(0, 2, (30,), generator=generator(0, "labels"))
WEIGHTS = initial_weights(build_model(SPEC), generator(0, "weights"))
SGD = LocalSettings(optimizer=OptimizerSettings("sgd", learning_rate=0.2, momentum=0.9), max_physical_batch=64)
START = Progress(done=0, planned=100)
CONTROL = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=1.0, steps=1)


def train(
    mechanism: DpSgdParams,
    steps: int,
    settings: LocalSettings = SGD,
    progress: Progress = START,
    watch: Callable[[LocalStep], None] | None = None,
) -> LocalResult:
    return train_locally(
        architecture=SPEC,
        weights=WEIGHTS,
        images=IMAGES,
        labels=LABELS,
        mechanism=mechanism,
        steps=steps,
        settings=settings,
        progress=progress,
        noise=seeded_noise(generator(0, "n")),
        batch_generator=generator(0, "b"),
        augmentation_generator=generator(0, "a"),
        device=torch.device("cpu"),
        watch=watch,
    )


@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_the_delta_is_momentum_sgd_on_the_noisy_gradients(proximal: float) -> None:
    mechanism = DpSgdParams(noise_multiplier=0.3, max_grad_norm=0.5, sample_rate=0.4, steps=3)
    model = build_model(SPEC)
    load_weights(model, WEIGHTS)
    summer = clipped_summer(model, max_grad_norm=0.5, max_physical_batch=64)
    master = {name: value.double() for name, value in WEIGHTS.items()}
    velocity = {name: torch.zeros_like(value) for name, value in master.items()}
    source = seeded_noise(generator(0, "n"))
    for indices in poisson_batches(num_records=30, sample_rate=0.4, steps=3, generator=generator(0, "b")):
        total = summer(IMAGES[indices], LABELS[indices]).total
        noise = gaussian_noise(total, std=0.3 * 0.5, source=source)
        for name in master:
            pull = proximal * (master[name] - WEIGHTS[name].double())
            velocity[name] = 0.9 * velocity[name] + (total[name] + noise[name]) / 12.0 + pull
            master[name] = master[name] - 0.2 * velocity[name]
        load_weights(model, master)
    found = train(mechanism, steps=3, settings=replace(SGD, proximal=proximal)).delta
    for name, value in master.items():
        torch.testing.assert_close(found[name], value - WEIGHTS[name].double(), rtol=1e-9, atol=1e-13)


def test_the_noise_of_a_huge_budget_arrives_whole() -> None:
    """At sigma 4.7e-6 float32 weights would round one step's noise; the delta keeps it to one part in a thousand."""
    sigma, clip, rate = 4.7e-6, 1.0, 0.4
    noisy = train(DpSgdParams(sigma, clip, rate, 1), steps=1).delta
    clean = train(DpSgdParams(0.0, clip, rate, 1), steps=1).delta
    expected = gaussian_noise(WEIGHTS, std=sigma * clip, source=seeded_noise(generator(0, "n")))
    for name, noise in expected.items():
        scaled = -0.2 * noise / 12.0
        torch.testing.assert_close(noisy[name] - clean[name], scaled, rtol=1e-3, atol=1e-3 * float(scaled.std()))
    # The trap that this avoids: weights sent in float32 carry noise that is rounded by more than a thousandth.
    name = "head.weight"
    start = WEIGHTS[name].double()
    rounded = (start + noisy[name]).float().double() - (start + clean[name]).float().double()
    assert float((rounded - (noisy[name] - clean[name])).abs().max()) > 0.05 * 0.2 * sigma / 12.0


def test_without_privacy_it_is_plain_sgd_on_the_batch_sum() -> None:
    model = build_model(SPEC)
    load_weights(model, WEIGHTS)
    torch.nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    found = train(CONTROL, steps=1).delta
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name].float(), -0.2 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_physical_batch_changes_nothing() -> None:
    mechanism = DpSgdParams(noise_multiplier=1e-4, max_grad_norm=0.5, sample_rate=0.5, steps=4)
    whole, split = (
        train(mechanism, steps=4).delta,
        train(mechanism, steps=4, settings=replace(SGD, max_physical_batch=4)).delta,
    )
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-3, atol=1e-6)


def test_empty_batches_train_on_noise_alone() -> None:
    mechanism = DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=1e-6, steps=2)
    found = train(mechanism, steps=2)
    assert found.records_seen == 0
    assert math.isnan(found.loss)
    assert all(bool(value.any()) for value in found.delta.values())


@pytest.mark.parametrize("name", ["sgd", "nadam", "adamw"])
def test_optimizer_and_schedule_move_the_weights_as_torch_would(name: str) -> None:
    schedule = ScheduleSettings("cosine", warmup=0.3, final_fraction=0.1)
    settings = LocalSettings(optimizer=OptimizerSettings(name, 0.05, 0.8, 0.02), schedule=schedule)
    found = train(CONTROL, 4, settings, Progress(done=2, planned=8)).delta
    model = build_model(SPEC).double()
    load_weights(model, WEIGHTS)
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8, weight_decay=0.02),
        "nadam": lambda p: torch.optim.NAdam(
            p, lr=1.0, betas=(0.8, 0.999), weight_decay=0.02, decoupled_weight_decay=True
        ),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1.0, betas=(0.8, 0.999), weight_decay=0.02),
    }
    optimizer = kinds[name](model.parameters())
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.05 * learning_rate_factor(schedule, (2 + step) / 8)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(IMAGES.double()), LABELS).backward()
        optimizer.step()
    precise = train(CONTROL, 4, replace(settings, precision="float64"), Progress(done=2, planned=8)).delta
    for parameter_name, parameter in model.named_parameters():
        expected = parameter.detach() - WEIGHTS[parameter_name].double()
        # A bias before a normalisation has a gradient of rounding errors alone, which the Adam family blows up.
        torch.testing.assert_close(precise[parameter_name], expected, rtol=1e-6, atol=1e-8)
        if name == "sgd":  # an Adam step can hang on the sign of a rounding error
            torch.testing.assert_close(found[parameter_name], expected, rtol=1e-3, atol=1e-6)


def test_a_learning_rate_after_the_end_is_the_last_one() -> None:
    settings = replace(SGD, schedule=ScheduleSettings("linear", final_fraction=0.25))
    plain, late = train(CONTROL, 1).delta, train(CONTROL, 1, settings, Progress(done=120, planned=100)).delta
    for name, value in plain.items():
        torch.testing.assert_close(late[name], 0.25 * value, rtol=1e-9, atol=1e-14)


def test_a_record_counts_by_the_mean_over_its_views_clipped_once() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=0.3, sample_rate=0.4, steps=1)
    settings = replace(SGD, augmentation="flip_shift", multiplicity=3)
    found = train(mechanism, 1, settings)
    (indices,) = poisson_batches(num_records=30, sample_rate=0.4, steps=1, generator=generator(0, "b"))
    seen, labels = views(
        IMAGES[indices], LABELS[indices], multiplicity=3, augmentation="flip_shift", generator=generator(0, "a")
    )
    model = build_model(SPEC).double()
    load_weights(model, WEIGHTS)
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in WEIGHTS.items()}
    for r in range(len(indices)):
        model.zero_grad()
        own = slice(3 * r, 3 * r + 3)
        torch.nn.functional.cross_entropy(model(seen[own].double()), labels[own]).backward()
        gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
        norm = math.sqrt(sum(float(value.square().sum()) for value in gradient.values()))
        for name, value in gradient.items():
            total[name] += value * min(1.0, 0.3 / norm)
    assert found.records_seen == len(indices)
    for name, value in total.items():
        torch.testing.assert_close(found.delta[name], -0.2 * value / 12.0, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("mechanism", [CONTROL, DpSgdParams(1e-3, 0.4, 0.5, 2)], ids=["control", "private"])
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float64"},
        {"multiplicity": 2},
        *[{"grad_mode": name} for name in GRAD_MODES],
        *[{"grad_mode": name, "precision": "float64", "max_physical_batch": 5} for name in GRAD_MODES],
    ],
    ids=str,
)
def test_how_it_is_computed_changes_nothing_but_rounding(mechanism: DpSgdParams, changes: dict[str, object]) -> None:
    plain, other = train(mechanism, 2).delta, train(mechanism, 2, replace(SGD, **changes)).delta  # type: ignore[arg-type]
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-6)


def test_bf16_is_rough_but_in_the_same_direction() -> None:
    mechanism = DpSgdParams(0.0, 0.4, 1.0, 1)
    plain, rough = (train(mechanism, 1, replace(SGD, precision=name)).delta for name in ("float32", "bf16"))
    whole, other = (torch.cat([value.flatten() for value in delta.values()]) for delta in (plain, rough))
    assert all(value.dtype == torch.float64 for value in rough.values())
    assert float(torch.nn.functional.cosine_similarity(whole, other, dim=0)) > 0.99
    assert not torch.equal(whole, other)


def test_the_ratio_of_noise_to_resolution_is_that_of_the_worst_step_and_grows_with_precision() -> None:
    mechanism = DpSgdParams(noise_multiplier=1e-5, max_grad_norm=0.5, sample_rate=0.5, steps=4)
    each = [train(mechanism, steps).noise_to_resolution for steps in (1, 2, 3, 4)]
    assert each == sorted(each, reverse=True)
    assert 1 < each[-1] < 1e5
    precise = train(mechanism, 4, replace(SGD, precision="float64")).noise_to_resolution
    assert precise == pytest.approx(2**29 * each[-1], rel=0.01)
    assert math.isnan(train(CONTROL, 1).noise_to_resolution)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("optimizer", replace(SGD, optimizer=OptimizerSettings("lion", 0.1, 0.0))),
        ("schedule", replace(SGD, schedule=ScheduleSettings("step"))),
        ("augmentation", replace(SGD, augmentation="cutout")),
        ("precision", replace(SGD, precision="fp8")),
    ],
)
def test_an_unknown_name_names_the_setting(key: str, settings: LocalSettings) -> None:
    with pytest.raises(SettingError, match=rf"training\.{key}: '\w+' is not known; choose one of: "):
        train(CONTROL, 1, settings)


def test_an_unknown_grad_mode_names_the_setting() -> None:
    with pytest.raises(SettingError, match=r"training\.grad_mode: 'magic' is not known"):
        train(DpSgdParams(0.0, 1.0, 1.0, 1), 1, replace(SGD, grad_mode="magic"))


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        (OptimizerSettings("sgd", learning_rate=0.2, momentum=0.9), "float32"),
        # A first step of the Adam family magnifies a rounding error of a tiny gradient to a whole step.
        (OptimizerSettings("nadam", learning_rate=2e-3, momentum=0.9), "float64"),
        (OptimizerSettings("adamw", learning_rate=2e-3, momentum=0.9, weight_decay=0.01), "float64"),
    ],
)
@pytest.mark.parametrize("spec", [SPEC, ModelSpec("resnet9", {"in_channels": 1, "num_classes": 2, "width": 4})])
@pytest.mark.parametrize("multiplicity", [1, 2])
def test_training_with_opacus_ends_with_the_same_weights(
    optimizer: OptimizerSettings, precision: str, spec: ModelSpec, multiplicity: int
) -> None:
    mechanism = DpSgdParams(noise_multiplier=1e-3, max_grad_norm=0.5, sample_rate=0.4, steps=12)
    weights = initial_weights(build_model(spec), generator(0, "weights"))
    images = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    deltas = [
        train_locally(
            architecture=spec,
            weights=weights,
            images=images,
            labels=LABELS,
            mechanism=mechanism,
            steps=12,
            settings=LocalSettings(
                optimizer=optimizer, precision=precision, grad_mode=grad_mode, augmentation="flip_shift",
                multiplicity=multiplicity, max_physical_batch=7,
            ),
            progress=START,
            noise=seeded_noise(generator(0, "n")),
            batch_generator=generator(0, "b"),
            augmentation_generator=generator(0, "a"),
            device=torch.device("cpu"),
        ).delta
        for grad_mode in ("hbdp", "opacus")
    ]  # fmt: skip
    for name, value in deltas[0].items():
        assert float(value.abs().max()) > 1e-4
        torch.testing.assert_close(value, deltas[1][name], rtol=0, atol=1e-5)


def test_a_watcher_sees_the_sum_that_the_noise_was_added_to() -> None:
    steps: list[LocalStep] = []

    def watch(step: LocalStep) -> None:
        # Its weights move on in place.
        steps.append(replace(step, weights={name: value.detach().clone() for name, value in step.weights.items()}))

    train(DpSgdParams(noise_multiplier=0.3, max_grad_norm=0.5, sample_rate=0.4, steps=3), steps=3, watch=watch)
    model = build_model(SPEC)
    summer = clipped_summer(model, max_grad_norm=0.5, max_physical_batch=64)
    source = seeded_noise(generator(0, "n"))
    assert len(steps) == 3
    for step in steps:
        load_weights(model, step.weights)
        total = summer(IMAGES[step.members], LABELS[step.members]).total
        noise = gaussian_noise(total, std=0.3 * 0.5, source=source)
        for name, value in total.items():
            assert torch.equal(step.clipped_sum[name], value)
            torch.testing.assert_close(step.gradient[name] * 12.0, value + noise[name], rtol=1e-12, atol=1e-12)


GROUPS = torch.tensor([row // 4 for row in range(30)])
PATIENTS = replace(SGD, records_per_patient=3)


def train_patients(settings: LocalSettings = PATIENTS, **named: Any) -> tuple[LocalResult, list[LocalStep]]:
    steps: list[LocalStep] = []
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=0.5, sample_rate=0.4, steps=3)
    found = train_locally(
        architecture=SPEC,
        weights=WEIGHTS,
        images=IMAGES,
        labels=LABELS,
        **{"groups": GROUPS, "mechanism": mechanism, "steps": 3, "settings": settings, **named},
        progress=START,
        noise=seeded_noise(generator(0, "n")),
        batch_generator=generator(0, "b"),
        augmentation_generator=generator(0, "a"),
        device=torch.device("cpu"),
        watch=lambda step: steps.append(
            replace(step, weights={name: value.detach().clone() for name, value in step.weights.items()})
        ),
    )
    return found, steps


def test_patients_are_drawn_clipped_together_and_divided_by_their_expected_number() -> None:
    result, steps = train_patients()
    for step in steps:
        assert step.counts is not None
        model = build_model(SPEC)
        load_weights(model, step.weights)
        total = torch.zeros(sum(value.numel() for value in model.parameters()), dtype=torch.float64)
        for rows in step.members.split(step.counts.tolist()):
            assert len(GROUPS[rows].unique()) == 1
            assert len(rows) == min(3, int((GROUPS[rows[0]] == GROUPS).sum()))
            loss = torch.nn.functional.cross_entropy(model(IMAGES[rows]), LABELS[rows])
            own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).double()
            total += own * min(1.0, 0.5 / float(own.norm()))
        # Eight patients are in a batch with 0.4 each; the sum has no noise here.
        found = torch.cat([value.flatten() for value in step.gradient.values()])
        torch.testing.assert_close(found, total / (0.4 * 8), rtol=1e-4, atol=1e-6)
    assert result.records_seen == sum(len(step.members) for step in steps)


def test_patients_train_alike_in_every_grad_mode() -> None:
    reference, _ = train_patients()
    for grad_mode in GRAD_MODES:
        other, _ = train_patients(replace(PATIENTS, grad_mode=grad_mode, max_physical_batch=5))
        assert all(
            torch.allclose(value, other.delta[name], rtol=1e-4, atol=1e-6) for name, value in reference.delta.items()
        )


def test_patients_that_nobody_names_are_not_trained_on() -> None:
    with pytest.raises(ValueError, match="not each of the 30 records has one"):
        train_patients(groups=None)


def test_with_records_as_units_it_is_all_the_same_whose_they_are() -> None:
    told, _ = train_patients(SGD)
    untold, _ = train_patients(SGD, groups=None)
    assert all(torch.equal(value, untold.delta[name]) for name, value in told.delta.items())
