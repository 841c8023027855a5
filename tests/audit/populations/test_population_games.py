"""Populations of a hospital's records: how large they are, how they train, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.adversary.property_inference import SHARES, PropertyInference
from hbdp_fed.audit.populations import (
    LARGEST,
    PlayedPopulations,
    play_populations,
    population_figures,
    population_size,
)
from hbdp_fed.audit.replay import SimulatedTraining
from hbdp_fed.data import Records, load_dataset
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import (
    DpSgdParams,
    HospitalPlan,
    ModelSpec,
    OptimizerSettings,
    PopulationObservation,
    PublicSideInformation,
    Surface,
)

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
MECHANISM = DpSgdParams(noise_multiplier=0.3, max_grad_norm=1.0, sample_rate=0.25, steps=4)
OPTIMIZER = OptimizerSettings("sgd", learning_rate=0.1, momentum=0.0)


@dataclass(frozen=True)
class Scene:
    training: SimulatedTraining
    knowledge: PopulationObservation
    has_property: Tensor


def scene(surface: Surface = "update") -> Scene:
    dataset = load_dataset("phantom", options={"num_train": 100, "num_val": 40, "num_test": 4, "image_size": 16})
    records: Records = dataset.train
    training = SimulatedTraining(
        seed=3,
        architecture=SPEC,
        local=LocalSettings(optimizer=OPTIMIZER),
        rounds=2,
        local_steps=2,
        plans=(HospitalPlan("hospital-01", len(records), MECHANISM, 8.0),),
        records=(records,),
        shares=(1.0,),
        device=torch.device("cpu"),
    )
    has = records.labels == 1
    knowledge = PopulationObservation(
        threat_model=replace(REALISTIC, surface=surface),
        architecture=SPEC,
        model_before=initial_weights(build_model(SPEC), torch.Generator().manual_seed(1)),
        public=PublicSideInformation(
            images=dataset.val.images.float() / 255 if dataset.val.images.dtype == torch.uint8 else dataset.val.images,
            mechanism=MECHANISM,
            optimizer=OPTIMIZER,
            expected_batch=MECHANISM.sample_rate * population_size(has),
            later_rates=(0.1,),
        ),
        labels=dataset.val.labels,
        has_property=dataset.val.labels == 1,
        released=(),
    )
    return Scene(training, knowledge, has)


class Recorder(PropertyInference):
    """Notes what it is shown, and scores by the order."""

    shown: ClassVar[list[PopulationObservation]] = []

    def tell(self, observation: PopulationObservation, generator: torch.Generator) -> Tensor:
        self.shown.append(observation)
        return torch.arange(float(len(observation.released)))


def play(made: Scene, attack: PropertyInference, *, populations: int = 6) -> PlayedPopulations:
    return play_populations(
        made.training,
        "hospital-01",
        made.knowledge,
        made.has_property,
        number=1,
        populations=populations,
        attack=attack,
        adversary=torch.Generator().manual_seed(1),
    )


@pytest.mark.parametrize(
    ("there", "missing", "size"), [(100, 100, 60), (40, 1000, 25), (31, 1000, 0), (0, 50, 0), (9999, 9999, LARGEST)]
)
def test_a_population_is_half_of_what_the_rarer_kind_allows(there: int, missing: int, size: int) -> None:
    found = population_size(torch.arange(there + missing) < there)
    assert found == size
    assert 2 * found * max(SHARES) <= min(there, missing)
    assert all(float(found * share).is_integer() for share in SHARES)


@pytest.mark.parametrize("surface", ["update", "gradient"])
def test_the_adversary_is_shown_answers_of_one_size_in_an_order_that_tells_nothing(surface: Surface) -> None:
    Recorder.shown.clear()
    made = scene(surface)
    played = play(made, Recorder())
    [shown] = Recorder.shown
    assert played.size == population_size(made.has_property)
    assert len(shown.released) == len(played.large) == 6
    assert int(played.large.sum()) == 3
    assert {(one.hospital, one.round, one.num_records) for one in shown.released} == {("hospital-01", 1, played.size)}
    # Alternating before, they come in another order.
    assert played.large.tolist() != [False, True] * 3
    assert shown.threat_model.surface == surface
    assert all(torch.equal(value, made.knowledge.model_before[name]) for name, value in shown.model_before.items())


def test_every_population_has_records_batches_and_noise_of_its_own() -> None:
    Recorder.shown.clear()
    play(scene(), Recorder())
    heads = [update.delta["head.bias"] for update in Recorder.shown[0].released]
    assert all(not torch.equal(heads[i], heads[j]) for i in range(6) for j in range(i))


def test_the_same_game_comes_out_the_same() -> None:
    made, attack = scene(), PropertyInference(shadows=8)
    first, second = play(made, attack, populations=2), play(made, attack, populations=2)
    assert torch.equal(first.scores, second.scores)
    assert torch.equal(first.large, second.large)


def test_a_hospital_with_too_few_records_of_a_kind_is_refused() -> None:
    made = scene()
    with pytest.raises(ValueError, match="too few records"):
        play(replace(made, has_property=torch.zeros(100) > 0), PropertyInference())


def test_figures_count_populations_on_the_right_side_and_rank_all_of_them() -> None:
    first = PlayedPopulations("a", 60, torch.tensor([2.0, -1.0, 0.5, -3.0]), torch.tensor([1, 0, 0, 1]) > 0)
    second = PlayedPopulations("b", 25, torch.tensor([4.0, -4.0]), torch.tensor([1, 0]) > 0)
    figures = population_figures(
        "property_inference", "update", [first, second], property="label=x", shadows=64, steps=5
    )
    assert figures.records == 6
    assert figures.clusters == ((4, 2), (2, 2))
    assert figures.success_rate == pytest.approx(4 / 6)
    # Of nine pairs: 2.0 and 4.0 beat all three, -3.0 beats -4.0 alone.
    assert figures.auc == pytest.approx(7 / 9)
    assert figures.auc_ci95[0] < figures.auc < figures.auc_ci95[1]
    assert (figures.population, figures.baseline_success_rate, figures.shares) == (25, 0.5, SHARES)
