"""Steps that are taken again give, bit for bit, what a federation's hospitals sent, and tell who was in which batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hbdp_fed.audit.replay import SimulatedTraining, all_trained, largest_difference, replay_batch, replay_round
from hbdp_fed.data import Records, write_shard
from hbdp_fed.dpsgd import poisson_batches
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.engine import EngineSettings, Simulated, run_federation
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import ServerHooks, Standing, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator
from hbdp_fed.training import LocalSettings, LocalStep, ScheduleSettings, views
from hbdp_fed.types import DpSgdParams, HospitalPlan, ModelSpec, ModelUpdate, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
SIZES, ROUNDS, LOCAL_STEPS = (18, 11), 2, 3
LOCAL = LocalSettings(
    optimizer=OptimizerSettings("sgd", 0.1, 0.9, weight_decay=0.01),
    schedule=ScheduleSettings("cosine"),
    augmentation="flip_shift",
    multiplicity=2,
)


def simulated(local: LocalSettings = LOCAL, *, sample_rate: float = 0.4) -> SimulatedTraining:
    plans, records = [], []
    for index, size in enumerate(SIZES):
        stream = generator(0, "site", index)
        mechanism = DpSgdParams(0.5, max_grad_norm=1.0, sample_rate=sample_rate, steps=ROUNDS * LOCAL_STEPS)
        plans.append(HospitalPlan(f"hospital-{index + 1:02d}", size, mechanism, eps_rdp=1.0))
        images, labels = torch.rand(size, 1, 12, 12, generator=stream), torch.randint(2, (size,), generator=stream)
        records.append(Records(images=images, labels=labels))
    return SimulatedTraining(
        seed=0,
        architecture=SPEC,
        local=local,
        rounds=ROUNDS,
        local_steps=LOCAL_STEPS,
        plans=tuple(plans),
        records=tuple(records),
        shares=tuple(size / sum(SIZES) for size in SIZES),
        device=torch.device("cpu"),
    )


@dataclass
class Travelled:
    """What a federation sent to and fro."""

    start: Weights
    updates: dict[int, list[ModelUpdate]] = field(default_factory=dict)
    reached: dict[int, Weights] = field(default_factory=dict)

    def before(self, number: int) -> Weights:
        return self.reached[number - 1] if number > 1 else self.start


def federated(training: SimulatedTraining, folder: Path) -> Travelled:
    """The same training by the federation's own server and clients."""
    sites = []
    for plan, records in zip(training.plans, training.records, strict=True):
        shard = folder / f"{plan.name}.safetensors"
        write_shard(shard, records)
        sites.append(Site(plan=plan, shard=str(shard)))
    settings = AppSettings(
        seed=training.seed,
        delta=1e-5,
        sites=tuple(sites),
        rounds=training.rounds,
        local_steps=training.local_steps,
        local=training.local,
        weighting="records",
        device="cpu",
        threads=1,
        round_timeout_s=120.0,
        secure_noise=False,
        replayable_batches=True,
    )
    travelled = Travelled(initial_weights(build_model(SPEC), generator(0, "initial-weights")))

    listener = Listener(
        on_update=lambda update: travelled.updates.setdefault(update.round, []).append(update),
        on_report=lambda report: None,
        on_failure=lambda failure: pytest.fail(failure.details),
    )
    hooks = ServerHooks(
        on_ready=lambda: None,
        training=listener,
        on_round=lambda standing: travelled.reached.__setitem__(standing.round, standing.weights),
        probes=lambda _: (),
        probing=listener,
        on_probe=lambda number: None,
    )
    run_federation(
        make_server_app(settings.to_json(), architecture=SPEC, start=Standing(0, travelled.start), hooks=hooks),
        make_client_app(settings.to_json()),
        simulated=Simulated.fresh(settings),
        engine=EngineSettings(name="inprocess", workers=1, threads_per_client=1, gpus_per_client=0.0),
    )
    return travelled


def ignore_step(step: LocalStep) -> None:
    pass


def noting(steps: list[LocalStep]) -> Callable[[LocalStep], None]:
    def watch(step: LocalStep) -> None:
        weights = {name: value.detach().clone() for name, value in step.weights.items()}
        steps.append(replace(step, weights=weights, gradient={k: v.clone() for k, v in step.gradient.items()}))

    return watch


@pytest.fixture(scope="module")
def start() -> Weights:
    return initial_weights(build_model(SPEC), generator(0, "weights"))


# A round.


@pytest.mark.parametrize(
    "local",
    [LOCAL, LocalSettings(optimizer=OptimizerSettings("nadam", 2e-3, 0.9, weight_decay=1e-3), loss="cross_entropy")],
    ids=["sgd", "nadam"],
)
def test_a_replayed_round_gives_every_bit_that_was_sent(tmp_path: Path, local: LocalSettings) -> None:
    training = simulated(local)
    travelled = federated(training, tmp_path)
    for number in (1, 2):
        for index, update in enumerate(travelled.updates[number]):
            assert update.hospital == training.plans[index].name
            again = replay_round(training, index, number, travelled.before(number), watch=ignore_step).delta
            assert again.keys() == update.delta.keys()
            assert all(torch.equal(again[name], update.delta[name]) for name in again)


def test_watching_changes_nothing_and_sees_what_made_the_update(start: Weights) -> None:
    training = simulated()
    steps: list[LocalStep] = []
    watched = replay_round(training, 0, 2, start, watch=noting(steps)).delta
    assert largest_difference(watched, replay_round(training, 0, 2, start, watch=ignore_step).delta) == 0
    assert len(steps) == LOCAL_STEPS
    batches = poisson_batches(
        num_records=SIZES[0],
        sample_rate=0.4,
        steps=LOCAL_STEPS,
        generator=batch_stream(0, training.plans[0].name, 2),
    )
    stream = augmentation_stream(0, training.plans[0].name, 2)
    for step, members in zip(steps, batches, strict=True):
        assert torch.equal(step.members, members)
        records = training.records[0].select(members)
        images, labels = views(
            records.images, records.labels, multiplicity=2, augmentation="flip_shift", generator=stream
        )
        assert torch.equal(step.images, images)
        assert torch.equal(step.labels, labels)
    # SGD by hand on the noisy gradients, the learning rates falling over both rounds.
    here = {name: value.double() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in here.items()}
    for position, step in enumerate(steps):
        progress = (LOCAL_STEPS + position) / (ROUNDS * LOCAL_STEPS)
        rate = 0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        for name in here:
            assert torch.equal(step.weights[name], here[name].float())
            velocity[name] = 0.9 * velocity[name] + step.gradient[name] + 0.01 * here[name]
            here[name] = here[name] - rate * velocity[name]
    for name, value in watched.items():
        torch.testing.assert_close(value, here[name] - start[name].double(), rtol=1e-9, atol=1e-13)


def test_a_noiseless_replay_takes_the_same_batches_and_leaves_out_the_noise_alone(start: Weights) -> None:
    training = simulated()
    noisy: list[LocalStep] = []
    clean: list[LocalStep] = []
    replay_round(training, 1, 1, start, watch=noting(noisy))
    replay_round(training, 1, 1, start, watch=noting(clean), noiseless=True)
    assert all(torch.equal(one.members, other.members) for one, other in zip(noisy, clean, strict=True))
    # The first steps start from the same weights: what differs is the noise.
    noise = torch.cat([(noisy[0].gradient[name] - value).flatten() for name, value in clean[0].gradient.items()])
    assert float(noise.std()) == pytest.approx(0.5 / (0.4 * SIZES[1]), rel=0.1)
    silent = replace(
        training,
        plans=tuple(replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=0.0)) for plan in training.plans),
    )
    expected = replay_round(silent, 1, 1, start, watch=ignore_step).delta
    assert (
        largest_difference(replay_round(training, 1, 1, start, watch=ignore_step, noiseless=True).delta, expected) == 0
    )


def test_weights_are_rounded_as_they_travel(start: Weights) -> None:
    training = simulated()
    finer = {name: value.double() * (1 + 1e-12) for name, value in start.items()}
    first, second = (replay_round(training, 0, 1, given, watch=ignore_step).delta for given in (start, finer))
    assert largest_difference(first, second) == 0


def test_the_largest_difference_is_the_largest_of_any_coordinate() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.0, -3.0]])}
    second = {"a": torch.tensor([1.5, 2.0]), "b": torch.tensor([[0.0, -1.0]])}
    assert largest_difference(first, second) == 2
    assert largest_difference(first, first) == 0


# A batch.


def members_of(training: SimulatedTraining, index: int, number: int) -> Tensor:
    plan = training.plans[index]
    stream = batch_stream(training.seed, plan.name, number)
    batches = poisson_batches(num_records=SIZES[index], sample_rate=0.4, steps=1, generator=stream)
    return next(iter(batches))


@pytest.mark.parametrize("number", range(3, 8))
def test_a_replayed_batch_holds_who_was_drawn_as_the_model_saw_them(start: Weights, number: int) -> None:
    """A probe is a round of one step; its images are those that a hospital's training step sees."""
    training = simulated()
    steps: list[LocalStep] = []
    replay_round(replace(training, local_steps=1), 0, number, start, watch=noting(steps))
    batch = replay_batch(training, training.plans[0].name, number)
    assert torch.equal(batch.images, steps[0].images)
    assert torch.equal(batch.labels, steps[0].labels)
    assert len(batch.groups) == len(steps[0].members)


def unchanged(*, sample_rate: float = 0.4) -> SimulatedTraining:
    """Without augmentation, so that a view is its record."""
    return simulated(LocalSettings(), sample_rate=sample_rate)


@pytest.mark.parametrize("number", range(1, 8))
def test_controls_are_records_that_were_not_in_the_batch_and_no_more_than_were(number: int) -> None:
    training = unchanged()
    members = members_of(training, 1, number).tolist()
    batch = replay_batch(training, training.plans[1].name, number)
    rows = {image.numpy().tobytes(): row for row, image in enumerate(training.records[1].images)}
    assert [rows[image.numpy().tobytes()] for image in batch.images] == members
    controls = [rows[image.numpy().tobytes()] for image in batch.controls]
    assert set(controls).isdisjoint(members)
    assert len(controls) == len(set(controls)) == min(len(members), SIZES[1] - len(members))
    assert len(batch.control_groups) == len(controls)


def test_where_everybody_was_drawn_there_are_no_controls() -> None:
    batch = replay_batch(unchanged(sample_rate=1.0), "hospital-01", 1)
    assert len(batch.images) == SIZES[0]
    assert batch.controls.shape == (0, 1, 12, 12)
    assert batch.control_groups.tolist() == []


def test_groups_are_the_patients_or_else_every_record_stands_for_itself() -> None:
    training = unchanged()
    members = members_of(training, 0, 1)
    alone = replay_batch(training, "hospital-01", 1)
    everybody = [*alone.groups.tolist(), *alone.control_groups.tolist()]
    assert len(set(everybody)) == len(everybody)
    assert max(everybody) < 0
    patients = torch.arange(SIZES[0]) // 3
    first = replace(training.records[0], groups=patients)
    batch = replay_batch(replace(training, records=(first, training.records[1])), "hospital-01", 1)
    assert torch.equal(batch.groups, patients[members])


def test_bytes_become_floats_as_the_model_sees_them() -> None:
    training = unchanged()
    coarse = tuple(replace(one, images=(one.images * 255).round().to(torch.uint8)) for one in training.records)
    batch = replay_batch(replace(training, records=coarse), "hospital-02", 1)
    assert batch.images.dtype == batch.controls.dtype == torch.float32
    assert float(batch.images.max()) <= 1
    whole = replay_batch(training, "hospital-02", 1)
    assert torch.allclose(batch.images, whole.images, atol=0.5 / 255 + 1e-6)


def test_the_first_steps_of_a_round_hold_everybody_whom_they_drew_once_and_as_first_seen(start: Weights) -> None:
    training = replace(simulated(), local_steps=3)
    steps: list[LocalStep] = []
    replay_round(training, 0, 1, start, watch=noting(steps))
    batch = replay_batch(training, training.plans[0].name, 1, steps=2)
    views_of = training.local.multiplicity
    expected: dict[int, Tensor] = {}
    for step in steps[:2]:
        for place, member in enumerate(step.members.tolist()):
            expected.setdefault(member, step.images[place * views_of : (place + 1) * views_of])
    assert len(batch.groups) == len(expected)
    assert torch.equal(batch.images, torch.cat(list(expected.values())))


def test_fewer_steps_of_a_round_are_its_first_ones(start: Weights) -> None:
    training = replace(simulated(), local_steps=3)
    whole: list[LocalStep] = []
    first: list[LocalStep] = []
    replay_round(training, 0, 1, start, watch=noting(whole))
    replay_round(training, 0, 1, start, watch=noting(first), steps=1)
    assert len(first) == 1
    assert largest_difference(first[0].gradient, whole[0].gradient) == 0


def test_at_most_so_many_records_are_compared_with_their_views_and_patients() -> None:
    batch = replay_batch(unchanged(sample_rate=1.0), "hospital-01", 1)
    few = batch.at_most(3, views=1, generator=torch.Generator().manual_seed(0))
    rows = {image.numpy().tobytes(): row for row, image in enumerate(batch.images)}
    chosen = [rows[image.numpy().tobytes()] for image in few.images]
    assert len(set(chosen)) == 3
    assert torch.equal(few.groups, batch.groups[chosen])
    assert torch.equal(few.labels, batch.labels[chosen])
    assert batch.at_most(10_000, views=1, generator=torch.Generator()) is batch


def test_what_the_released_model_is_held_against_is_trained_records_beside_others() -> None:
    training = unchanged()
    inside, outside = training.records
    batch = all_trained(inside, outside, most=4, generator=torch.Generator().manual_seed(0))
    assert (len(batch.images), len(batch.controls)) == (4, 4)
    assert set(batch.groups.tolist()).isdisjoint(batch.control_groups.tolist())
    own = {image.numpy().tobytes() for image in inside.images}
    others = {image.numpy().tobytes() for image in outside.images}
    assert all(image.numpy().tobytes() in own for image in batch.images)
    assert all(image.numpy().tobytes() in others for image in batch.controls)
    assert len(all_trained(inside, outside, most=10_000, generator=torch.Generator()).images) == len(inside)


def test_a_hospital_alone_is_the_same_hospital(start: Weights) -> None:
    training = simulated()
    name = training.plans[1].name
    alone = training.alone(name)
    assert alone.index(name) == 0
    assert largest_difference(replay_round(alone, 0, 1, start).delta, replay_round(training, 1, 1, start).delta) == 0
