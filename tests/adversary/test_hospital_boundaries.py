"""What attacks on whole hospitals are handed in a run: public records, what hospitals answered, and no truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hbdp_fed.adversary import ATTACKS, build_attack
from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.adversary.property_inference import PropertyInference
from hbdp_fed.types import PopulationObservation, QueryObservation
from simulations.assault import Assault
from simulations.compose import compose_run, typed
from simulations.hospital_games import hospital_tasks
from simulations.prepare import Prepared, prepare
from simulations.run_folder import RunFolder
from tests.adversary.reachable import reachable, tensors

SEED = 918273
SETTINGS = [
    "engine=inprocess", f"seed={SEED}", "eps=8", "clients=2", "training.rounds=2", "training.local_steps=2",
    "training.expected_batch=8", "data.num_train=200", "data.num_val=40", "data.num_test=20", "data.image_size=16",
    "model.width=4", "adversary.attack=[property_inference,linear_reconstruction]",
    "adversary.surfaces=[gradient,update]", "adversary.populations=4", "adversary.shadows=8",
]  # fmt: skip
Handed = list[tuple[Any, Any, torch.Generator]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Handed]:
    """A run that was prepared, and what its attacks on hospitals were handed."""
    handed: Handed = []
    prepared = prepare(typed(compose_run(SETTINGS)))
    folder = RunFolder(tmp_path_factory.mktemp("hospitals"))
    with pytest.MonkeyPatch.context() as patch:
        for kind, method in ((PropertyInference, "tell"), (LinearReconstruction, "recover")):

            def watch(self: Any, observation: Any, generator: torch.Generator, *, _answer: Any = None) -> Any:
                handed.append((self, observation, generator))
                return _answer(self, observation, generator)

            answer = getattr(kind, method)
            patch.setattr(kind, method, lambda s, o, g, a=answer, w=watch: w(s, o, g, _answer=a))
        for task in hospital_tasks(Assault(prepared, folder, prepared.attacks.attacks, lambda _: None)):
            task()
    return prepared, handed


def of(handed: Handed, kind: type) -> list[Any]:
    found = [observation for _, observation, _ in handed if isinstance(observation, kind)]
    assert found
    return found


def test_every_attack_was_watched(world: tuple[Prepared, Handed]) -> None:
    _, handed = world
    seen = [(one.released[0].hospital, one.threat_model.surface) for one in of(handed, PopulationObservation)]
    assert sorted(seen) == [(f"hospital-0{n}", surface) for n in (1, 2) for surface in ("gradient", "update")]
    # Two hospitals with three noises each.
    assert len(of(handed, QueryObservation)) == 6


def test_populations_come_with_public_records_and_the_model_alone(world: tuple[Prepared, Handed]) -> None:
    prepared, handed = world
    for one in of(handed, PopulationObservation):
        assert replace(one.threat_model, surface="gradient") == ATTACKS["property_inference"].threat_model
        names = set(one.model_before)
        assert set(tensors(one)) == {
            ".public.images", ".labels", ".has_property",
            *(f".model_before[{name!r}]" for name in names),
            *(f".released[{place}].delta[{name!r}]" for place in range(4) for name in names),
        }  # fmt: skip
        assert torch.equal(one.labels, prepared.federated.val.labels)
        assert all(not tensor.requires_grad for tensor in tensors(one).values())


def test_no_private_image_is_among_the_public_ones(world: tuple[Prepared, Handed]) -> None:
    prepared, handed = world
    private = torch.cat([one.records.images.double().flatten(start_dim=1) for one in prepared.federated.hospitals])
    for one in of(handed, PopulationObservation):
        public = one.public.images.double().flatten(start_dim=1)
        assert float(torch.cdist(private, public).min()) > 0


def test_queries_come_with_their_answers_and_four_numbers_alone(world: tuple[Prepared, Handed]) -> None:
    _, handed = world
    for one in of(handed, QueryObservation):
        assert {path for path, _ in reachable(one)} == {".queries", ".answers", ".noise_std", ".prior"}
        assert one.queries.shape == (4 * one.queries.shape[1], one.queries.shape[1])


def test_no_attack_draws_from_a_stream_of_the_truth(world: tuple[Prepared, Handed]) -> None:
    """Each has its own, by the name of the adversary, and no number leads to the others."""
    _, handed = world
    seeds = [generator.initial_seed() for _, _, generator in handed]
    # A hospital's three answers to the same queries are attacked from one stream.
    assert len(set(seeds)) == 6
    for attack, observation, _ in handed:
        held = {value for _, value in reachable((attack, observation)) if isinstance(value, int | float)}
        assert SEED not in held
        assert vars(attack) == vars(build_attack(attack.name, **_settings(attack)))


def _settings(attack: Any) -> dict[str, int]:
    return {"shadows": attack.shadows} if isinstance(attack, PropertyInference) else {}
