"""What a threat model does not grant cannot be reached from what its attacks are handed in a run.

A tiny federation of two hospitals is trained and put to all attacks on all surfaces, by the program that people start.
Every attack is watched: what it is handed is walked to the last field and held against the secrets of that run, which
are taken again from its settings. The import rules are in ``tests/test_architecture.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import (
    ATTACKS,
    REBUILDING,
    SURFACES,
    WORST_CASE,
    AttackEntry,
    build_attack,
    load_observation,
    recorded_names,
)
from hbdp_fed.adversary.worst_case import log_likelihood_ratios
from hbdp_fed.audit import GrantedRecord, SimulatedTraining, grant_step_knowledge, replay_batch
from hbdp_fed.models import read_weights
from hbdp_fed.seeding import augmentation_stream, batch_stream, noise_stream
from hbdp_fed.training import optimizer_at
from hbdp_fed.types import ALL_HOSPITALS, CandidateObservation, Observation, Reconstruction, Surface
from simulations.assault import Assault
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.run import main
from simulations.run_folder import RunFolder
from tests.adversary.reachable import reachable, tensors

METHODS = {**dict.fromkeys(REBUILDING, "reconstruct"), "identification": "identify", "membership": "score"}
WATCHED = [name for name, entry in ATTACKS.items() if entry.kind in METHODS]
"""Those that are told of what a run recorded; the others are watched in ``test_hospital_boundaries.py``."""

SEED, SIZE, CANDIDATES = 918273, 16, 5
HOSPITALS = ("hospital-01", "hospital-02")
SETTINGS = [
    "engine=inprocess", f"seed={SEED}", "eps=1", "clients=2", "training.rounds=2", "training.local_steps=2",
    "training.expected_batch=5", "partition.sizes=power_law", "data.num_train=45", "data.num_val=12",
    "data.num_test=60", f"data.image_size={SIZE}", "model.width=4", "evaluation.bootstrap=2", "evaluation.matrix=0",
    f"adversary.attack=[{','.join(WATCHED)}]", f"adversary.surfaces=[{','.join(SURFACES)}]",
    "adversary.bins=16", f"adversary.candidates={CANDIDATES}", "adversary.targets=8", "adversary.observed_rounds=0",
]  # fmt: skip

SAME = 1 - 1e-5
"""The cosine from which two tensors count as one up to a factor."""

_LONG = 64
"""Shorter vectors, a layer's offsets, look alike by chance."""


@dataclass(frozen=True)
class Handed:
    """What one attack was handed once."""

    attack: Any
    observation: Observation | CandidateObservation
    generator: torch.Generator | None

    @property
    def name(self) -> str:
        return str(self.attack.name)

    @property
    def surface(self) -> Surface:
        return self.observation.threat_model.surface


@dataclass(frozen=True)
class World:
    """A run with everything that its attacks were handed, and with its secrets."""

    prepared: Prepared
    folder: RunFolder
    handed: tuple[Handed, ...]
    granted: tuple[GrantedRecord, ...]

    @cached_property
    def training(self) -> SimulatedTraining:
        return Assault(self.prepared, self.folder, (), lambda _: None).training

    @cached_property
    def images(self) -> Tensor:
        """All private images, float64 (N, D): hospitals hold no copies of each other's."""
        return torch.cat(
            [one.records.images.double().flatten(start_dim=1) for one in self.prepared.federated.hospitals]
        )

    @cached_property
    def updates(self) -> dict[str, list[Tensor]]:
        """By hospital, all parts of all that it ever sent, flattened: of training rounds and of probes."""
        found: dict[str, list[Tensor]] = {name: [] for name in HOSPITALS}
        for number in (1, 2):
            for name in HOSPITALS:
                sent = read_weights(self.folder.observations / f"round-{number:04d}" / f"{name}.safetensors")
                found[name] += [value.double().flatten() for value in sent.values()]
        for recorded in recorded_names(self.folder.observations):
            released = load_observation(self.folder.observations, recorded).released
            found[released.hospital] += [value.double().flatten() for value in released.delta.values()]
        return found

    @cached_property
    def seeds(self) -> set[int]:
        """From which everything could be taken again."""
        streams = (batch_stream, noise_stream, augmentation_stream)
        return {SEED} | {
            stream(SEED, name, number).initial_seed()
            for stream in streams
            for name in HOSPITALS
            for number in range(1, 9)
        }

    def to(self, *names: str) -> list[Handed]:
        found = [one for one in self.handed if one.name in names]
        assert found
        return found


def watched(method: str, handed: list[Handed], answer: Callable[..., Any]) -> Callable[..., Any]:
    """The attack's method, that also notes what it is handed."""
    assert method in ("reconstruct", "identify", "score")

    def watch(self: Any, observation: Any, generator: torch.Generator | None = None) -> Any:
        handed.append(Handed(self, observation, generator))
        return answer(self, observation) if generator is None else answer(self, observation, generator)

    return watch


def nothing_rebuilt(attack: Any, observation: Observation, generator: torch.Generator) -> Reconstruction:
    """Spares the minutes of the real attack: what it is handed is known by then."""
    return Reconstruction(torch.zeros(0, *observation.public.images.shape[1:]), torch.zeros(0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("boundaries") / "run"
    handed: list[Handed] = []
    granted: list[GrantedRecord] = []

    def watched_grant(*arguments: Any, **keywords: Any) -> Iterator[GrantedRecord]:
        for record in grant_step_knowledge(*arguments, **keywords):
            granted.append(record)
            yield record

    with pytest.MonkeyPatch.context() as patch:
        for name in WATCHED:
            kind = type(build_attack(name))
            method = METHODS[ATTACKS[name].kind]
            quick = ATTACKS[name].kind in REBUILDING and not ATTACKS[name].threat_model.perfect_algorithm
            patch.setattr(kind, method, watched(method, handed, nothing_rebuilt if quick else getattr(kind, method)))
        patch.setattr("simulations.rebuilding.grant_step_knowledge", watched_grant)
        assert main([*SETTINGS, f"run_dir={folder}"]) == 0
    prepared = prepare(typed(compose_run(SETTINGS)))
    return World(prepared, RunFolder(folder), tuple(handed), tuple(granted))


def closeness(held: Tensor, secrets: Sequence[Tensor]) -> float:
    """The largest |cosine| of ``held``, or of its rows, with a secret of the same length."""
    largest = 0.0
    flat = held.double().flatten()
    for secret in secrets:
        if len(secret) >= _LONG and len(flat) and len(flat) % len(secret) == 0:
            rows = flat.reshape(-1, len(secret))
            largest = max(largest, float(torch.cosine_similarity(rows, secret[None], dim=1).abs().max()))
    return largest


def texts(thing: Any) -> set[str]:
    return {value for _, value in reachable(thing) if isinstance(value, str)}


def numbers(thing: Any) -> set[float]:
    return {value for _, value in reachable(thing) if isinstance(value, int | float)}


# Everybody.


def test_every_attack_was_watched_on_every_surface(world: World) -> None:
    assert {(one.name, one.surface) for one in world.handed} == {
        (name, surface) for name in WATCHED for surface in ATTACKS[name].surfaces
    }
    for one in world.handed:
        assert replace(one.observation.threat_model, surface="gradient") == ATTACKS[one.name].threat_model


def test_no_seed_that_would_repeat_the_run_is_handed_over(world: World) -> None:
    """Neither as a number nor in the generator that an attack draws from."""
    for one in world.handed:
        assert not numbers((one.attack, one.observation)) & world.seeds
        assert one.generator is None or one.generator.initial_seed() not in world.seeds


def test_nothing_that_is_handed_over_leads_back_to_where_it_was_computed(world: World) -> None:
    for one in world.handed:
        for path, tensor in tensors((one.attack, one.observation)).items():
            assert not tensor.requires_grad, path
            assert tensor.grad_fn is None, path


def test_where_the_mean_is_seen_no_single_hospital_is(world: World) -> None:
    alone = [part for parts in world.updates.values() for part in parts]
    for one in world.handed:
        if isinstance(one.observation, Observation) and one.surface in ("aggregate", "global_model"):
            assert one.observation.released.hospital == ALL_HOSPITALS
            assert not texts(one.observation) & set(HOSPITALS)
            for path, tensor in tensors(one.observation.released).items():
                assert closeness(tensor, alone) < 0.99, path


def test_where_one_hospital_is_seen_the_others_are_not(world: World) -> None:
    for one in world.handed:
        if isinstance(one.observation, Observation) and one.surface in ("gradient", "update"):
            own = one.observation.released.hospital
            [other] = set(HOSPITALS) - {own}
            assert other not in texts(one.observation)
            for path, tensor in tensors(one.observation).items():
                assert closeness(tensor, world.updates[other]) < SAME, path


def test_the_settings_of_an_attack_hold_no_truth(world: World) -> None:
    """Numbers and names, and of tensors only what public images gave."""
    for name, entry in ATTACKS.items():
        check_plain(name, entry)
    for one in world.handed:
        prior = getattr(one.attack, "prior", None)
        held = set(tensors(one.attack))
        assert held <= {".prior.mean", ".prior.factors", ".prior.residual"}
        assert bool(held) == (prior is not None)
        if prior is not None:
            again = build_attack(one.name).prepared(one.observation.public.images).prior  # type: ignore[union-attr]
            assert all(
                torch.equal(getattr(prior, part), getattr(again, part)) for part in ("mean", "factors", "residual")
            )


def check_plain(name: str, entry: AttackEntry) -> None:
    attack: Any = entry.build()
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.name = "another"
    fields = {field.name: field.type for field in dataclasses.fields(attack)}
    assert vars(attack).keys() == fields.keys()
    plain = {"str", "int", "float", "bool", "str | None", "int | None", "float | None", "tuple[float, ...]"}
    allowed = plain | ({"ImagePrior | None"} if name == "linear_probe" else set())
    assert set(fields.values()) <= allowed, f"{name}: {fields}"


# A realistic adversary.


def test_a_realistic_adversary_holds_the_model_the_release_and_public_images_alone(world: World) -> None:
    for one in world.to("imprint", "trap_weights", "loki"):
        assert isinstance(one.observation, Observation)
        assert one.observation.knowledge is None
        names = set(one.observation.model_before)
        assert set(tensors(one.observation)) == {
            ".public.images",
            *(f".model_before[{name!r}]" for name in names),
            *(f".released.delta[{name!r}]" for name in one.observation.released.delta),
        }
        assert set(one.observation.released.delta) <= names
        # Labels and who was in a batch are whole numbers.
        assert all(tensor.is_floating_point() for tensor in tensors(one.observation).values())


def test_a_realistic_adversary_holds_no_private_image(world: World) -> None:
    """At this budget not even in the release."""
    public = world.prepared.federated.val.images.double().flatten(start_dim=1)
    # The measure tells an image that is held from one that is not.
    assert closeness(world.images[3] * 0.2, list(world.images)) > SAME
    assert closeness(public, list(world.images)) < SAME
    for one in world.to("imprint", "trap_weights", "loki"):
        for path, tensor in tensors(one.observation).items():
            assert closeness(tensor, list(world.images)) < SAME, path


def test_what_is_said_of_a_hospital_does_not_depend_on_its_batch(world: World) -> None:
    """Its announced figures are those of its plan: nobody's presence moves them."""
    plans, local = {plan.name: plan for plan in world.prepared.plans}, world.prepared.local
    # One hospital's figures would not pass for another's.
    assert len({plan.mechanism for plan in plans.values()}) == len({plan.num_records for plan in plans.values()}) == 2
    for one in world.to("imprint", "trap_weights", "loki", "linear_probe"):
        assert isinstance(one.observation, Observation)
        public = one.observation.public
        assert (public.loss, public.class_weights, public.optimizer) == (
            local.loss, local.class_weights, optimizer_at(local, 1.0),
        )  # fmt: skip
        if one.surface in ("gradient", "update"):
            plan, released = plans[one.observation.released.hospital], one.observation.released
            assert released.num_records == plan.num_records
            assert public.mechanism == plan.mechanism
            assert public.expected_batch == plan.expected_batch


# A relaxed one.


def test_a_relaxed_adversary_is_granted_the_others_and_a_factor_besides(world: World) -> None:
    for one in world.to("linear_probe"):
        assert isinstance(one.observation, Observation)
        knowledge = one.observation.knowledge
        assert set(tensors(knowledge)) == {".others['probe.weight']"}
        assert {path for path, _ in reachable(knowledge)} == {".factor", ".others key", ".others['probe.weight']"}
        assert set(tensors(replace(one.observation, knowledge=None))) == {
            ".public.images", ".model_before['probe.weight']", ".released.delta['probe.weight']",
        }  # fmt: skip


def test_a_relaxed_adversary_holds_nothing_of_the_records_own_image_but_the_release(world: World) -> None:
    """Neither the image in any scale nor anything that adds up to it: all else that it holds leaves much of it over."""
    own = {id(record.observation): record.image for record in world.granted}
    checked = 0
    for one in world.to("linear_probe"):
        image = own[id(one.observation)].double().flatten()
        held = {
            path: tensor
            for path, tensor in tensors((one.attack, one.observation)).items()
            if ".released.delta" not in path
        }
        assert len(held) == 6
        for path, tensor in held.items():
            assert closeness(tensor, [image]) < SAME, path
        rows = torch.cat(
            [tensor.double().reshape(-1, len(image)) for path, tensor in held.items() if "prior" not in path]
        )
        left = image - rows.T @ torch.linalg.lstsq(rows.T, image[:, None], driver="gelsd").solution.flatten()
        assert float(left.norm()) > 0.02 * float(image.norm())
        # The factor gives the image's length away, as the clipping norm does, and no pixel.
        checked += 1
    assert checked == len([record for record in world.granted if record.observation.knowledge.factor])  # type: ignore[union-attr]
    assert checked > 20


def test_what_is_granted_of_the_others_holds_every_record_of_the_step_but_one(world: World) -> None:
    """By projection: with its image put back, and only then, the sum has the record's share."""
    hospital = HOSPITALS[0]
    number = world.prepared.probe_rounds["linear_probe"][0]
    batch = replay_batch(world.training, hospital, number)
    found = [
        one.observation
        for one in world.to("linear_probe")
        if one.surface == "gradient" and one.observation.released.hospital == hospital  # type: ignore[union-attr]
    ]
    assert len(found) == len(batch.labels) > 1
    images = batch.images.double().flatten(start_dim=1)
    for place, observation in enumerate(found):
        assert isinstance(observation, Observation)
        assert observation.knowledge is not None
        others = observation.knowledge.others["probe.weight"].flatten()
        weights = torch.linalg.lstsq(images.T, others[:, None], driver="gelsd").solution.flatten()
        clip = observation.public.mechanism.max_grad_norm
        expected = clip / images.norm(dim=1)
        expected[place] = 0.0
        torch.testing.assert_close(weights.abs(), expected, rtol=1e-3, atol=1e-4)


# The worst case's.


def worst_cases(world: World) -> Iterator[CandidateObservation]:
    for one in world.to("candidate_matching", "membership"):
        assert isinstance(one.observation, CandidateObservation)
        yield one.observation


def test_the_worst_case_holds_inner_products_alone(world: World) -> None:
    for seen in worst_cases(world):
        releases = len(seen.participation)
        laws = {f".participation[{place}][{side}]" for place in range(releases) for side in (0, 1)}
        assert set(tensors(seen)) == {".projections", ".squared_norms", ".noise_variance", *laws}
        assert seen.projections.shape == seen.squared_norms.shape
        assert seen.projections.shape[1] == len(seen.noise_variance) == releases
        assert seen.projections.shape[2] in (1, CANDIDATES)
        assert all(tensor.dtype == torch.float64 for tensor in tensors(seen).values())


def test_the_worst_case_is_told_how_often_a_record_is_drawn_and_not_whether_it_was(world: World) -> None:
    """The law of participation is the same for every candidate of every hospital with that sample rate."""
    rates, met = {plan.mechanism.sample_rate for plan in world.prepared.plans}, set()
    for seen in worst_cases(world):
        means = [float((values * law).sum()) / float(values.max()) for values, law in seen.participation]
        [rate] = [rate for rate in rates if means == pytest.approx([rate] * len(means))]
        met.add(rate)
    assert met == rates
    assert len(rates) == len(HOSPITALS)


def test_the_order_of_candidates_is_no_part_of_what_an_attack_weighs(world: World) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    for one in world.to("candidate_matching"):
        seen = one.observation
        assert isinstance(seen, CandidateObservation)
        moved = replace(seen, projections=seen.projections[..., order], squared_norms=seen.squared_norms[..., order])
        assert torch.equal(log_likelihood_ratios(moved), log_likelihood_ratios(seen)[..., order])


def test_of_candidates_that_look_alike_each_is_named_as_often() -> None:
    """Where nothing tells them apart, the place of the right one is never an answer by itself."""
    games = 4000
    ones = torch.ones(games, 2, CANDIDATES, dtype=torch.float64)
    seen = CandidateObservation(
        threat_model=WORST_CASE,
        projections=0.3 * ones,
        squared_norms=ones,
        noise_variance=torch.ones(2, dtype=torch.float64),
        participation=[(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 0.5]).double())] * 2,
    )
    named = build_attack("candidate_matching").identify(seen, torch.Generator().manual_seed(1))
    counts = torch.bincount(named, minlength=CANDIDATES).double()
    assert float((counts - games / CANDIDATES).square().sum() / (games / CANDIDATES)) < 18.5  # chi-squared(4), 0.1%
