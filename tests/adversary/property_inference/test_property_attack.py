"""Shadow hospitals train as hospitals do, and populations are told apart where they differ and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.adversary.property_inference import SHARES, PropertyInference, ShadowTraining, draw_population
from hbdp_fed.adversary.property_inference.features import fit_features, flatten
from hbdp_fed.audit.ranking import auc_with_interval
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.training import LocalSettings, LocalStep, Progress, ScheduleSettings, optimizer_at, train_locally
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    OptimizerSettings,
    PopulationObservation,
    PublicSideInformation,
    Surface,
    Weights,
)

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
MECHANISM = DpSgdParams(noise_multiplier=0.5, max_grad_norm=1.0, sample_rate=0.2, steps=3)
OPTIMIZER = OptimizerSettings("sgd", learning_rate=0.2, momentum=0.9)
SETTINGS = LocalSettings(optimizer=OPTIMIZER, schedule=ScheduleSettings("cosine"))
PROGRESS = Progress(done=0, planned=6)
SIZE = 20


def records(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Those of class 1 are brighter."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=stream)
    images = 0.3 * torch.rand(count, 1, 8, 8, generator=stream) + 0.5 * labels[:, None, None, None]
    return images, labels


def observation(
    *,
    surface: Surface = "update",
    released: tuple[ModelUpdate, ...] = (),
    has_property: Tensor | None = None,
) -> PopulationObservation:
    images, labels = records(60, 1)
    return PopulationObservation(
        threat_model=replace(REALISTIC, surface=surface),
        architecture=SPEC,
        model_before=initial_weights(build_model(SPEC), torch.Generator().manual_seed(2)),
        public=PublicSideInformation(
            images=images,
            mechanism=MECHANISM,
            optimizer=optimizer_at(SETTINGS, PROGRESS.after(0)),
            expected_batch=MECHANISM.sample_rate * SIZE,
            later_rates=tuple(optimizer_at(SETTINGS, PROGRESS.after(step)).learning_rate for step in (1, 2)),
        ),
        labels=labels,
        has_property=labels == 1 if has_property is None else has_property,
        released=released,
    )


def answered(images: Tensor, labels: Tensor, seed: int) -> tuple[Weights, list[Weights]]:
    """What the project's own local loop makes of these records, and its noisy gradients."""
    stream = torch.Generator().manual_seed(seed)
    gradients: list[Weights] = []

    def watch(step: LocalStep) -> None:
        gradients.append({name: value.clone() for name, value in step.gradient.items()})

    result = train_locally(
        architecture=SPEC,
        weights=observation().model_before,
        images=images,
        labels=labels,
        mechanism=MECHANISM,
        steps=3,
        settings=SETTINGS,
        progress=PROGRESS,
        noise=seeded_noise(stream),
        batch_generator=stream,
        augmentation_generator=stream,
        device=torch.device("cpu"),
        watch=watch,
    )
    return result.delta, gradients


def population(share: float, seed: int, has_property: Tensor | None = None) -> ModelUpdate:
    images, labels = records(200, 3)
    stream = torch.Generator().manual_seed(seed)
    marks = labels == 1 if has_property is None else has_property
    rows = draw_population(marks, size=SIZE, share=share, stream=stream)
    return ModelUpdate("hospital", 1, answered(images[rows], labels[rows], seed)[0], SIZE)


# Shadow hospitals.


def test_a_shadow_hospital_trains_as_a_hospital_does() -> None:
    """To the last bit, where batches and noise are the same."""
    images, labels = records(SIZE, 4)
    expected, gradients = answered(images, labels, seed=5)
    stream = torch.Generator().manual_seed(5)
    update = ShadowTraining(observation()).update(images, labels, stream, noisy=True)
    assert update.keys() == expected.keys()
    assert all(torch.equal(update[name], expected[name]) for name in update)
    stream = torch.Generator().manual_seed(5)
    seen = ShadowTraining(observation(surface="gradient")).update(images, labels, stream, noisy=True)
    for name, value in seen.items():
        torch.testing.assert_close(value, -sum(step[name] for step in gradients) / 3)  # type: ignore[arg-type]


def test_a_shadow_hospital_starts_anew_each_time() -> None:
    images, labels = records(SIZE, 4)
    training = ShadowTraining(observation())
    first, second = (training.update(images, labels, torch.Generator().manual_seed(6), noisy=False) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
def test_a_population_has_its_share_of_different_records(share: float) -> None:
    marks = torch.arange(50) % 2 == 0
    rows = draw_population(marks, size=20, share=share, stream=torch.Generator().manual_seed(1))
    assert len(rows) == len(rows.unique()) == 20
    assert int(marks[rows].sum()) == round(20 * share)


def test_where_records_are_too_few_some_come_twice_and_where_there_are_none_it_is_refused() -> None:
    marks = torch.arange(12) < 3
    rows = draw_population(marks, size=20, share=0.8, stream=torch.Generator().manual_seed(1))
    assert int(marks[rows].sum()) == 16
    with pytest.raises(ValueError, match="either kind"):
        draw_population(torch.zeros(12) > 0, size=20, share=0.8, stream=torch.Generator().manual_seed(1))


# Features.


def test_the_direction_in_which_noiseless_updates_differ_is_found_through_noise() -> None:
    """Two parameters, of which one differs by a known direction: its projection tells, whatever the noise is."""
    stream = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(40, generator=stream, dtype=torch.float64), dim=0)

    def update(sign: float, noise: float) -> Weights:
        flat = sign * direction + noise * torch.randn(40, generator=stream, dtype=torch.float64)
        return {"a.weight": flat.reshape(8, 5), "b.bias": noise * torch.randn(3, generator=stream, dtype=torch.float64)}

    features = fit_features([update(1, 0.0) for _ in range(4)], [update(-1, 0.0) for _ in range(4)])
    torch.testing.assert_close(features.difference[:40], direction)
    # After two norms come the projections.
    tells = torch.stack([features(update(sign, 0.3))[2] for sign in (1, -1) for _ in range(50)])
    area, _ = auc_with_interval(tells, torch.arange(100) < 50)
    assert area > 0.99
    names = ("a.weight", "b.bias")
    assert len(flatten(update(1, 0.1), names)) == 43


# The attack.


@pytest.fixture(scope="module")
def told() -> tuple[PopulationObservation, Tensor, Tensor]:
    """Populations of either share with their scores."""
    released = tuple(population(SHARES[place % 2], seed=100 + place) for place in range(16))
    seen = observation(released=released)
    scores = PropertyInference(shadows=32).tell(seen, torch.Generator().manual_seed(1))
    return seen, scores, torch.arange(16) % 2 == 1


def test_populations_that_differ_are_told_apart(told: tuple[PopulationObservation, Tensor, Tensor]) -> None:
    _, scores, large = told
    area, (low, _) = auc_with_interval(scores, large)
    assert area > 0.9
    assert low > 0.6


def test_an_answers_score_does_not_depend_on_other_answers(
    told: tuple[PopulationObservation, Tensor, Tensor],
) -> None:
    seen, scores, _ = told
    alone = PropertyInference(shadows=32).tell(
        replace(seen, released=seen.released[3:4]), torch.Generator().manual_seed(1)
    )
    assert float(alone[0]) == pytest.approx(float(scores[3]), rel=1e-9)


def test_a_property_that_does_not_show_is_not_told() -> None:
    """The control: records have it by lot, at hospitals as in public."""
    stream = torch.Generator().manual_seed(7)
    here, public = torch.rand(200, generator=stream) < 0.5, torch.rand(60, generator=stream) < 0.5
    released = tuple(population(SHARES[place % 2], seed=300 + place, has_property=here) for place in range(24))
    seen = observation(released=released, has_property=public)
    scores = PropertyInference(shadows=16).tell(seen, torch.Generator().manual_seed(1))
    area, (low, high) = auc_with_interval(scores, torch.arange(24) % 2 == 1)
    assert low < 0.5 < high
    assert 0.2 < area < 0.8


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(SettingError, match=r"adversary\.shadows: must be at least 8"):
        PropertyInference(shadows=7)
    nothing = observation(released=(population(0.2, 1),), has_property=torch.zeros(60) > 0)
    with pytest.raises(SettingError, match=r"adversary\.property"):
        PropertyInference().tell(nothing, torch.Generator())


def test_an_observation_holds_single_hospitals_of_one_size_and_labelled_public_records() -> None:
    seen = observation()
    with pytest.raises(ValueError, match="aggregate"):
        replace(seen, threat_model=replace(REALISTIC, surface="aggregate"))
    with pytest.raises(ValueError, match="60 public images have 59 labels"):
        replace(seen, labels=seen.labels[1:])
    with pytest.raises(ValueError, match="one size"):
        replace(seen, released=(ModelUpdate("a", 1, {}, 20), ModelUpdate("b", 1, {}, 21)))
