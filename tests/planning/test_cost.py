"""What training costs, against closed forms and what really travels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from flwr.common.serde import recorddict_to_proto
from flwr.supercore.task_identity import TaskIdentity

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.codec import RoundReport, TrainRequest, reply_content, request_messages
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.planning import Speed, cost, leaving, model_size, protections, read_consortium
from hbdp_fed.planning.consortium import Consortium
from hbdp_fed.planning.cost import expected_round_seconds, round_bytes
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelUpdate
from tests.planning.consortia import small


def speeds(consortium: Consortium) -> dict[str, Speed]:
    return {hospital.name: Speed(hospital.records_per_s or 500.0, "given") for hospital in consortium.hospitals}


def test_a_net_of_monais_has_a_size_and_one_of_several_tensors_is_refused() -> None:
    net = {"name": "monai", "net": "resnet10", "args": {"widen_factor": 0.1}}
    size = model_size(read_consortium(small(model=net)))
    assert size.parameters == sum(value.numel() for value in build_model(size.architecture).parameters())
    with pytest.raises(SettingError, match=r"^model: monai\.VQVAE gives a tuple, not one tensor"):
        model_size(read_consortium(small(model={"name": "monai", "net": "VQVAE"}, image={"size": 32})))


def test_a_round_adds_up_what_its_slowest_hospital_takes() -> None:
    consortium = read_consortium(small(training__multiplicity=2, a__watts=360))
    size = model_size(consortium)
    found = cost(consortium, size, speeds(consortium))
    bits = 8 * size.parameters
    # 5 steps of 20 records in 2 views at 100, 50 and 200 a second.
    assert [own.compute_s for own in found.hospitals] == pytest.approx([2.0, 4.0, 1.0], rel=1e-12)
    lines = [0.1 + bits * 4 / 80e6 + bits * 8 / 16e6, 1.0 + bits * 4 / 100e6 + bits * 8 / 40e6]
    assert [own.transfer_s for own in found.hospitals[:2]] == pytest.approx(lines, rel=1e-12)
    assert found.round.waits_for == "b"
    assert found.round.seconds == pytest.approx(4.0 + lines[1], rel=1e-12)
    assert found.total.hours == pytest.approx(10 * found.round.seconds / 3600, rel=1e-12)
    # 360 W for 2 s are 0.2 Wh; the others draw the assumed 150 W.
    assert found.round.watt_hours == pytest.approx(0.2 + 150 * 5 / 3600, rel=1e-12)
    assert found.hospitals[0].kilowatt_hours == pytest.approx(10 * 0.2 / 1000, rel=1e-12)
    assert found.total.kilowatt_hours == pytest.approx(10 * found.round.watt_hours / 1000, rel=1e-12)
    assert found.total.gigabytes == pytest.approx(10 * found.round.gigabytes, rel=1e-12)


def test_what_travels_is_what_the_messages_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    consortium = read_consortium(small(model={"name": "resnet9", "width": 8}))
    size = model_size(consortium)
    weights = initial_weights(build_model(size.architecture), generator(0, "test"))
    assert size.parameters == sum(value.numel() for value in weights.values())
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    (request,) = request_messages(TrainRequest(1, 5, size.architecture, weights), [1])
    update = ModelUpdate("a", 1, {name: value.double() for name, value in weights.items()}, 400)
    figures = {"loss": 0.5, "clipped_share": 0.5, "noise_to_resolution": 9.0, "seconds": 1.0}
    report = RoundReport("a", 1, "ok", records=400, records_seen=99, steps=5, steps_spent=5, bytes=0, **figures)
    travels = sum(
        recorddict_to_proto(content).ByteSize() for content in (request.content, reply_content(update, report))
    )
    counted = round_bytes(size)
    assert travels <= counted <= 1.05 * travels
    assert counted - 12 * size.parameters < 20_000


def test_the_expected_round_is_the_mean_over_all_outages() -> None:
    seconds = {"a": 2.0, "b": 7.0, "c": 3.0}
    available = {"a": 0.9, "b": 0.5, "c": 0.7}
    mean = 0.0
    for there in itertools.product((True, False), repeat=3):
        chance = math.prod(
            available[name] if here else 1 - available[name] for name, here in zip(seconds, there, strict=True)
        )
        mean += chance * max((seconds[name] for name, here in zip(seconds, there, strict=True) if here), default=0.0)
    assert expected_round_seconds(seconds, available) == pytest.approx(mean, rel=1e-12)


def test_who_is_seldom_there_sends_and_draws_less() -> None:
    consortium = read_consortium(small(b__availability=0.5))
    size = model_size(consortium)
    whole = cost(read_consortium(small()), size, speeds(consortium))
    found = cost(consortium, size, speeds(consortium))
    assert found.hospitals[1].gigabytes == pytest.approx(whole.hospitals[1].gigabytes / 2, rel=1e-12)
    assert found.hospitals[1].kilowatt_hours == pytest.approx(whole.hospitals[1].kilowatt_hours / 2, rel=1e-12)
    assert found.round == whole.round
    assert found.total.hours < whole.total.hours


@pytest.mark.parametrize("batch_per", ["hospital", "federation"])
def test_leaving_is_computed_by_hand(batch_per: str) -> None:
    consortium = read_consortium(small(training__batch_per=batch_per, budgets=[1e6]))
    size, table = model_size(consortium), protections(consortium)
    found = {entry.name: entry for entry in leaving(consortium, size, speeds(consortium), table)}
    assert [found[name].records_lost_share for name in "abc"] == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=1e-12)
    assert {entry.waits_for for entry in found.values()} == {"a", "b"}
    rest = read_consortium(small(training__batch_per=batch_per, budgets=[1e6], hospitals=small()["hospitals"][:2]))
    after = protections(rest)
    before = math.sqrt(
        sum(
            (
                hospital.records
                / 700
                * (table[hospital.name][0].noise_multiplier or 0)
                / consortium.expected_batch(hospital)
            )
            ** 2
            for hospital in consortium.hospitals
        )
    )
    without_c = math.sqrt(
        sum(
            (hospital.records / 600 * (after[hospital.name][0].noise_multiplier or 0) / rest.expected_batch(hospital))
            ** 2
            for hospital in rest.hospitals
        )
    )
    factor = found["c"].noise_factor
    assert factor == pytest.approx(without_c / before, rel=1e-6)
    own = cost(rest, size, speeds(rest))
    assert found["c"].round_s == pytest.approx(own.round.seconds, rel=1e-12)
    assert found["c"].hours == pytest.approx(own.total.hours, rel=1e-12)


def test_the_noise_in_the_mean_is_what_is_drawn() -> None:
    """The weighted mean of clipped sums with noise, drawn many times."""
    from hbdp_fed.planning.leaving import mean_noise

    consortium = read_consortium(small(budgets=[1e6]))
    rows = {name: own[0] for name, own in protections(consortium).items()}
    draw = generator(0, "test")
    total = torch.zeros(40_000, dtype=torch.float64)
    for hospital in consortium.hospitals:
        noise = torch.randn(40_000, generator=draw, dtype=torch.float64) * (rows[hospital.name].noise_multiplier or 0)
        total += hospital.records / 700 * noise / 20
    assert float(total.std()) == pytest.approx(mean_noise(consortium, rows), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": {"name": "resnet"}}, "'resnet' is not known"),
        ({"model": {"name": "cnn", "depth": 3}}, "depth"),
        ({"model": {"name": "unet"}}, "does not suit the task binary"),
        ({"task": "segmentation"}, "a class for every pixel"),
        ({"image": {"size": 2}, "model": {"name": "unet"}, "task": "segmentation"}, "2x2"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        model_size(read_consortium(small(**changes)))
    assert problem in str(caught.value)
