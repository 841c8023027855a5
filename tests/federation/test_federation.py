"""The federation as a whole: what it computes, what it records, what it refuses, and that engines agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hbdp_fed.data import read_shard
from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN, seeded_noise
from hbdp_fed.errors import HospitalFailure, SettingError
from hbdp_fed.federation.cluster import LOCAL, ClusterSettings, cluster
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator, noise_stream
from hbdp_fed.training import LocalSettings, Progress, ScheduleSettings, train_locally
from hbdp_fed.types import ModelSpec, ModelUpdate, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
Runner = Callable[..., "object"]


def probe(number: int, steps: int = 1) -> TrainRequest:
    return TrainRequest(
        round=number, steps=steps, architecture=SPEC, weights=initial_weights(build_model(SPEC), generator(9, "evil"))
    )


def alone(settings: AppSettings, site: Site, received: Weights, number: int) -> Weights:
    """What a hospital computes in a round, without any federation around it."""
    records = read_shard(Path(site.shard))
    result = train_locally(
        architecture=SPEC,
        weights=received,
        images=records.images,
        labels=records.labels,
        mechanism=site.plan.mechanism,
        steps=settings.local_steps,
        settings=settings.local,
        progress=Progress(done=(number - 1) * settings.local_steps, planned=settings.rounds * settings.local_steps),
        noise=seeded_noise(noise_stream(settings.seed, site.plan.name, number)),
        batch_generator=batch_stream(settings.seed, site.plan.name, number),
        augmentation_generator=augmentation_stream(settings.seed, site.plan.name, number),
        device=torch.device("cpu"),
    )
    return result.delta


@pytest.mark.parametrize(
    "local",
    [
        LocalSettings(optimizer=OptimizerSettings("sgd", 0.1, 0.9), max_physical_batch=64),
        LocalSettings(
            optimizer=OptimizerSettings("nadam", 2e-3, 0.9, weight_decay=1e-3),
            schedule=ScheduleSettings("cosine", warmup=0.2, final_fraction=0.1),
            augmentation="flip_shift",
            multiplicity=2,
            grad_mode="torch_func",
            precision="float64",
        ),
    ],
    ids=["plain", "everything"],
)
def test_a_round_adds_the_record_weighted_mean_of_what_hospitals_compute_alone(settings, run, local) -> None:
    settings = replace(settings, local=local)
    witness = run(settings)
    weights = {
        name: value.double()
        for name, value in initial_weights(build_model(SPEC), generator(0, "initial-weights")).items()
    }
    total = sum(site.plan.num_records for site in settings.sites)
    for number in (1, 2):
        received = {name: value.float() for name, value in weights.items()}
        for site in settings.sites:
            delta = alone(settings, site, received, number)
            for name in weights:
                weights[name] = weights[name] + delta[name] * site.plan.num_records / total
        for name, value in weights.items():
            torch.testing.assert_close(witness.weights[number][name], value, rtol=0, atol=1e-12)


def test_the_tap_sees_float64_updates_of_every_hospital_in_order(settings, run) -> None:
    witness = run(settings)
    assert sorted(witness.updates) == [1, 2]
    for number, updates in witness.updates.items():
        assert [update.hospital for update in updates] == list(settings.hospitals)
        assert all(update.round == number for update in updates)
        assert all(value.dtype == torch.float64 for update in updates for value in update.delta.values())
        assert [update.num_records for update in updates] == [20, 31, 12]


def test_what_travels_is_the_same_with_and_without_a_probe_and_the_probe_is_not_aggregated(settings, run) -> None:
    plain, probed = run(settings), run(settings, probes=[probe(3)])
    assert weights_sha256(plain.final) == weights_sha256(probed.final)
    assert list(probed.probed) == [3]
    assert [report.steps_spent for report in probed.reports[3]] == [7, 7, 7]


def test_repeated_probes_draw_from_streams_of_their_own(settings, run) -> None:
    sites = tuple(
        replace(s, plan=replace(s.plan, mechanism=replace(s.plan.mechanism, steps=8))) for s in settings.sites
    )
    witness = run(replace(settings, sites=sites), probes=[probe(3), probe(4)])
    digests = {weights_sha256(update.delta) for updates in witness.probed.values() for update in updates}
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (probe(3, steps=2), "6 of the 7 planned ones are spent"),
        (probe(2), "round 2 was answered before"),
        (probe(3, steps=0), "asks for 0 steps"),
    ],
)
def test_a_hospital_refuses_what_would_break_its_budget(settings, run, request_: TrainRequest, reason: str) -> None:
    with pytest.raises(HospitalFailure, match=reason) as failure:
        run(settings, probes=[request_])
    assert failure.value.hospital == "hospital-01"


def test_a_hospital_that_raises_is_named_with_its_traceback(settings, run) -> None:
    Path(settings.sites[1].shard).unlink()
    with pytest.raises(HospitalFailure, match=r"(?s)hospital-02 failed.*Traceback.*site-1\.safetensors"):
        run(settings)


def test_another_seed_gives_another_model_and_the_same_seed_the_same(settings, run) -> None:
    first, again, other = run(settings), run(settings), run(replace(settings, seed=1))
    assert weights_sha256(first.final) == weights_sha256(again.final) != weights_sha256(other.final)


def test_equal_weighting_differs_from_weighting_by_records(settings, run) -> None:
    by_records, equal = run(settings), run(replace(settings, weighting="equal"))
    update = by_records.updates[1]
    start = by_records.weights[0]
    for name, value in equal.weights[1].items():
        mean = torch.stack([u.delta[name] for u in update]).mean(dim=0)
        torch.testing.assert_close(value, start[name] + mean, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def two_processors() -> Iterator[None]:
    """Ray, started once for all that runs on it."""
    with cluster(ClusterSettings(address=LOCAL, processors=2, gpus=False)):
        yield


@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_gives_the_same_bits_as_one_process(settings, run, workers: int) -> None:
    alone, on_ray = run(settings, probes=[probe(3)]), run(settings, engine="ray", workers=workers, probes=[probe(3)])
    assert weights_sha256(on_ray.final) == weights_sha256(alone.final)
    digests = [[weights_sha256(u.delta) for u in w.probed[3]] for w in (alone, on_ray)]
    assert digests[0] == digests[1]


@pytest.mark.usefixtures("two_processors")
def test_a_failure_on_ray_is_named_with_its_traceback(settings, run) -> None:
    Path(settings.sites[2].shard).unlink()
    with pytest.raises(HospitalFailure, match=r"(?s)hospital-03 failed.*Traceback.*site-2\.safetensors"):
        run(settings, engine="ray")


def test_one_hospital_is_a_federation(settings, run) -> None:
    witness = run(replace(settings, sites=settings.sites[:1]))
    assert witness.ready == 1
    assert len(witness.updates[2]) == 1


def test_every_report_carries_its_ratio_of_noise_to_resolution(settings, run) -> None:
    witness = run(settings, probes=[probe(3)])
    ratios = [report.noise_to_resolution for reports in witness.reports.values() for report in reports]
    assert len(ratios) == 9
    assert all(ratio > EFFECTIVELY_GAUSSIAN for ratio in ratios)


def test_a_deployment_draws_noise_and_batches_that_no_seed_repeats(settings, run) -> None:
    site, deployed = settings.sites[0], replace(settings, secure_noise=True, replayable_batches=False)
    assert AppSettings(
        seed=0, delta=1e-5, sites=(site,), rounds=1, local_steps=1, local=settings.local, weighting="equal",
        device="cpu", threads=1, round_timeout_s=1.0,
    ) == replace(
        deployed, sites=(site,), rounds=1, local_steps=1, weighting="equal", round_timeout_s=1.0
    )  # fmt: skip
    first, again = run(deployed), run(deployed)
    assert weights_sha256(first.final) != weights_sha256(again.final)
    assert seen(first) != seen(again)


def test_secure_noise_over_replayable_batches_leaves_the_batches_to_the_audit(settings, run) -> None:
    seeded, secure = run(settings), run(replace(settings, secure_noise=True))
    assert seen(seeded) == seen(secure)
    assert weights_sha256(seeded.final) != weights_sha256(secure.final)


def seen(witness) -> list[int]:
    """How many records each hospital's batches held in each round."""
    return [report.records_seen for number in sorted(witness.reports) for report in witness.reports[number]]


def test_an_unknown_engine_names_the_known_ones(settings, run) -> None:
    with pytest.raises(SettingError, match="engine: 'slurm' is not known; choose one of: inprocess, ray"):
        run(settings, engine="slurm")


def test_settings_survive_json_with_an_infinite_budget(settings: AppSettings) -> None:
    plan = settings.sites[0].plan
    mechanism = replace(plan.mechanism, noise_multiplier=0.0, max_grad_norm=float("inf"))
    site = replace(settings.sites[0], plan=replace(plan, mechanism=mechanism, eps_rdp=float("inf")))
    local = LocalSettings(optimizer=OptimizerSettings("adamw", 1e-3), schedule=ScheduleSettings("linear", 0.1))
    changed = replace(settings, sites=(site, *settings.sites[1:]), local=local, secure_noise=True)
    assert AppSettings.from_json(changed.to_json()) == changed
    assert "Infinity" not in changed.to_json()


def test_an_update_is_what_its_name_says(settings, run) -> None:
    """Local weights minus the global weights received: replaying one hospital's round gives the recorded delta."""
    witness = run(settings)
    received = {name: value.float() for name, value in witness.weights[1].items()}
    replay = alone(settings, settings.sites[0], received, number=2)
    recorded: ModelUpdate = witness.updates[2][0]
    assert weights_sha256(replay) == weights_sha256(recorded.delta)
