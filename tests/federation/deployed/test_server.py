"""A real federation's server: the same models as a simulation's, whatever stops in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp

from hbdp_fed.errors import HospitalFailure, QuorumLost
from hbdp_fed.federation import deployed_grid
from hbdp_fed.federation.charter import CHARTER, Charter, CharterError
from hbdp_fed.federation.codec import identity_content
from hbdp_fed.federation.deployed_server import SERVER_ROOT, make_deployed_server_app
from hbdp_fed.federation.follower import Follower, Told
from hbdp_fed.federation.server_folder import ServerFolder
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.site_folder import write_policy
from hbdp_fed.models import save_weights, weights_sha256
from hbdp_fed.privacy.ledger import verify
from hbdp_fed.types import Weights
from tests.federation.conftest import ROUNDS, Runner, Witness
from tests.federation.deployed.conftest import POLICY, FlowerStandIn, Hospital, Make, nudged

Serve = Callable[..., None]


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_ROOT, str(tmp_path / "server"))
    monkeypatch.setattr(deployed_grid, "_POLL_S", 0.0)
    monkeypatch.setattr("hbdp_fed.federation.deployed_server._ROLL_CALL_S", 0.5)
    monkeypatch.setattr("hbdp_fed.federation.deployed_server._ROLL_CALL_AGAIN_S", 0.5)


@pytest.fixture
def flower(hospital: Make) -> FlowerStandIn:
    return FlowerStandIn({100 + place: hospital(place) for place in (2, 0, 1)})


def serve(flower: FlowerStandIn, charter: Charter) -> None:
    """Run the server app as a process of its own would."""
    for own in flower.hospitals.values():
        own.charter = charter
    app: ServerApp = make_deployed_server_app()
    context = Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=UserConfig({CHARTER: charter.to_json()})
    )
    app(grid=flower, context=context)  # type: ignore[arg-type]


def folder_of(tmp_path: Path, charter: Charter) -> ServerFolder:
    return ServerFolder.of(tmp_path / "server", charter)


def followed(folder: ServerFolder, start: Weights, *, after: int | None = None) -> tuple[Witness, Follower]:
    witness = Witness()
    hooks = witness.hooks(())
    follower = Follower(folder, Told(hooks.training, hooks.on_ready, hooks.on_round), after=after, like=start)
    follower.look()
    return witness, follower


def charged(own: Hospital) -> int:
    (file,) = own.folder.agreements.glob("*/ledger.jsonl")
    return verify(file).accounts[own.name].steps_spent


def same(left: Weights, right: Weights) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_a_follower_sees_what_a_simulation_shows(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights, settings: AppSettings, run: Runner
) -> None:
    simulated = run(settings)
    serve(flower, charter)
    seen, follower = followed(folder_of(tmp_path, charter), start)
    assert follower.done
    assert seen.ready == 1
    assert sorted(seen.standings) == [0, 1, 2]
    for number in range(ROUNDS + 1):
        assert same(seen.weights[number], simulated.weights[number])
    for number in range(1, ROUNDS + 1):
        for left, right in zip(seen.updates[number], simulated.updates[number], strict=True):
            assert (left.hospital, left.num_records) == (right.hospital, right.num_records)
            assert same(left.delta, right.delta)
        told = [(report.hospital, report.loss, report.steps_spent) for report in seen.reports[number]]
        assert told == [(report.hospital, report.loss, report.steps_spent) for report in simulated.reports[number]]
    assert [attendance.present for attendance in seen.attendances] == [settings.hospitals] * ROUNDS


def test_a_killed_server_goes_on_and_nobody_is_charged_twice(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights, settings: AppSettings, run: Runner
) -> None:
    # Even noise that nobody can repeat is the same after the restart: the hospitals send what they sent before.
    secure = replace(charter, settings=replace(charter.settings, secure_noise=True))
    answered = 0

    def killed_after_four(message: Message, own: Hospital) -> Message | None:
        nonlocal answered
        if message.metadata.message_type == "train":
            answered += 1
            if answered == 5:  # two hospitals have answered in round 2
                raise KeyboardInterrupt
        return None

    flower.between = killed_after_four
    with pytest.raises(KeyboardInterrupt):
        serve(flower, secure)
    folder = folder_of(tmp_path, secure)
    with folder.journal_file.open("a") as file:
        file.write('{"kind": "rou')  # cut off in the middle of a line
    first_answers = {own.name: own.folder for own in flower.hospitals.values()}
    stored = {
        name: next(path.agreements.glob("*/answers/round-000002.safetensors"), None)
        for name, path in first_answers.items()
    }
    kept = {name: file.read_bytes() for name, file in stored.items() if file is not None}
    assert len(kept) == 1
    flower.between = lambda message, own: None
    flower.hospitals = {node: own.restarted() for node, own in flower.hospitals.items()}
    flower.sent.clear()
    serve(flower, secure)
    seen, follower = followed(folder, start)
    assert follower.done
    assert [report.hospital for report in seen.reports[2]] == list(settings.hospitals)
    for name, data in kept.items():
        file = stored[name]
        assert file is not None
        assert file.read_bytes() == data
    assert {charged(own) for own in flower.hospitals.values()} == {ROUNDS * settings.local_steps}


def test_a_restart_ends_at_the_weights_of_a_run_without_one(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights, settings: AppSettings, run: Runner
) -> None:
    def killed_in_round_2(message: Message, own: Hospital) -> Message | None:
        if message.metadata.group_id == "2":
            raise KeyboardInterrupt
        return None

    flower.between = killed_in_round_2
    with pytest.raises(KeyboardInterrupt):
        serve(flower, charter)
    flower.between = lambda message, own: None
    flower.sent.clear()
    serve(flower, charter)
    seen, _ = followed(folder_of(tmp_path, charter), start)
    assert same(seen.final, run(settings).final)


def test_a_finished_federation_that_is_started_again_asks_nobody(flower: FlowerStandIn, charter: Charter) -> None:
    serve(flower, charter)
    flower.asked.clear()
    serve(flower, charter)
    assert flower.asked == []


def test_a_follower_that_knows_a_round_is_told_the_later_ones(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights
) -> None:
    serve(flower, charter)
    seen, follower = followed(folder_of(tmp_path, charter), start, after=1)
    assert follower.done
    assert sorted(seen.standings) == [2]
    assert sorted(seen.reports) == [2]


def test_a_refusal_ends_the_federation_before_its_first_round_on_both_sides(
    tmp_path: Path, flower: FlowerStandIn, hospital: Make, charter: Charter, start: Weights
) -> None:
    flower.hospitals[101] = hospital(1, policy=replace(POLICY, highest_epsilon=8.0))
    with pytest.raises(
        HospitalFailure, match=r"hospital-02 failed:\nrefused: the plan's epsilon .* above the ceiling of 8"
    ):
        serve(flower, charter)
    seen, follower = followed(folder_of(tmp_path, charter), start)
    follower.give_up()
    assert follower.ending is not None
    assert follower.ending["hospital"] == "hospital-02"
    assert [(failure.hospital, failure.kind) for failure in seen.failures] == [("hospital-02", "refused")]
    assert seen.standings == {}
    own = flower.hospitals[101]
    (file,) = own.folder.agreements.glob("*/ledger.jsonl")
    assert verify(file).accounts["hospital-02"].refusals == 1


def test_a_node_that_takes_another_hospitals_name_is_found_out(flower: FlowerStandIn, charter: Charter) -> None:
    def impostor(message: Message, own: Hospital) -> Message | None:
        if message.metadata.message_type == "query" and own.name == "hospital-03":
            return Message(identity_content(hospital="hospital-01"), reply_to=message)
        return None

    flower.between = impostor
    with pytest.raises(HospitalFailure, match=r"hospital-03 failed:\nits node says that it is hospital-01|two nodes"):
        serve(flower, charter)


def test_a_node_that_nobody_registered_is_not_asked(flower: FlowerStandIn, charter: Charter, hospital: Make) -> None:
    stranger = replace(hospital(0), name="stranger")
    flower.hospitals = {1: stranger, **flower.hospitals}
    serve(flower, charter)
    assert 1 not in {node for node, _ in flower.asked}


def test_a_replayed_reply_is_not_used(tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights) -> None:
    tolerant = replace(charter, settings=replace(charter.settings, on_failure="tolerate"))
    first: dict[str, RecordDict] = {}

    def replaying(message: Message, own: Hospital) -> Message | None:
        if message.metadata.message_type != "train" or own.name != "hospital-02":
            return None
        if message.metadata.group_id == "1":
            reply = own.replied(message)
            first[own.name] = reply.content
            return reply
        return Message(first[own.name], reply_to=message)

    flower.between = replaying
    serve(flower, tolerant)
    seen, _ = followed(folder_of(tmp_path, tolerant), start)
    (failure,) = seen.failures
    assert (failure.hospital, failure.round, failure.kind) == ("hospital-02", 2, "unusable")
    assert "to round 1" in failure.details
    assert [update.hospital for update in seen.updates[2]] == ["hospital-01", "hospital-03"]


def test_hospitals_that_are_offline_are_missed_in_that_round_alone_and_not_charged(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights
) -> None:
    tolerant = replace(charter, settings=replace(charter.settings, on_failure="tolerate"))

    def leaves_after_the_roll_call(message: Message, own: Hospital) -> Message | None:
        last_of_the_roll = message.metadata.message_type == "query" and own.name == "hospital-03"
        flower.offline = {101} if last_of_the_roll else set()
        return None

    flower.between = leaves_after_the_roll_call
    serve(flower, tolerant)
    seen, _ = followed(folder_of(tmp_path, tolerant), start)
    assert [attendance.offline for attendance in seen.attendances] == [("hospital-02",), ()]
    assert [update.hospital for update in seen.updates[2]] == list(charter.settings.hospitals)
    assert charged(flower.hospitals[101]) == charter.settings.local_steps


def test_a_round_in_which_everybody_left_is_begun_anew(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights, settings: AppSettings, run: Runner
) -> None:
    tolerant = replace(charter, settings=replace(charter.settings, on_failure="tolerate"))
    lost = 0

    def all_leave_once(message: Message, own: Hospital) -> Message | None:
        nonlocal lost
        if message.metadata.group_id == "2" and lost < 3:
            lost += 1
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "away"), reply_to=message)
        return None

    flower.between = all_leave_once
    serve(flower, tolerant)
    seen, follower = followed(folder_of(tmp_path, tolerant), start)
    assert lost == 3
    assert follower.done
    assert seen.failures == []  # of a round that was begun anew nothing is told
    assert same(seen.final, run(settings).final)


def test_a_round_in_which_everybody_refuses_is_not(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, hospital: Make, start: Weights
) -> None:
    tolerant = replace(charter, settings=replace(charter.settings, on_failure="tolerate"))

    def stricter(message: Message, own: Hospital) -> Message | None:
        if message.metadata.group_id == "2":
            write_policy(own.folder.policy_file, replace(POLICY, highest_epsilon=8.0))
        return None

    flower.between = stricter
    with pytest.raises(QuorumLost):
        serve(flower, tolerant)
    seen, follower = followed(folder_of(tmp_path, tolerant), start)
    follower.give_up()
    assert sorted(seen.standings) == [0, 1]
    assert {(failure.round, failure.kind) for failure in seen.failures} == {(2, "refused")}
    assert {charged(own) for own in flower.hospitals.values()} == {charter.settings.local_steps}


def test_a_round_that_needs_everybody_waits_for_everybody(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(_: float) -> None:
        nonlocal looks
        looks += 1
        flower.offline = set()

    monkeypatch.setattr("hbdp_fed.federation.deployed_server.time.sleep", look)

    def leaves_after_the_roll_call(message: Message, own: Hospital) -> Message | None:
        if message.metadata.message_type == "query" and own.name == "hospital-03":
            flower.offline = {101}
        return None

    flower.between = leaves_after_the_roll_call
    serve(flower, charter)
    seen, _ = followed(folder_of(tmp_path, charter), start)
    assert looks
    assert [attendance.offline for attendance in seen.attendances] == [(), ()]


def test_a_hospital_that_leaves_in_the_roll_call_is_waited_for(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights
) -> None:
    calls = 0

    def leaves_once(message: Message, own: Hospital) -> Message | None:
        nonlocal calls
        if message.metadata.message_type == "query" and own.name == "hospital-02":
            calls += 1
            if calls == 1:
                return Message(Error(ErrorCode.NODE_UNAVAILABLE, "away"), reply_to=message)
        return None

    flower.between = leaves_once
    serve(flower, charter)
    assert calls == 2
    assert followed(folder_of(tmp_path, charter), start)[1].done


def test_a_tampered_model_is_refused_by_all_and_changes_nothing(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights
) -> None:
    file = tmp_path / "server" / "initial" / f"{weights_sha256(start)}.safetensors"
    save_weights(file, nudged(start, 0.1))
    liar = replace(charter, settings=replace(charter.settings, seed=5))  # whose seed gives other weights
    with pytest.raises(CharterError, match="does not hold the weights that it is named after"):
        serve(flower, liar)
    assert flower.asked == []


def test_weights_that_no_seed_gives_come_from_the_servers_own_file(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, start: Weights
) -> None:
    pretrained = nudged(start, 0.1)
    terms = replace(charter, initial_sha256=weights_sha256(pretrained))
    with pytest.raises(CharterError, match=f"put them on the server as initial/{weights_sha256(pretrained)}"):
        serve(flower, terms)
    save_weights(tmp_path / "server" / "initial" / f"{weights_sha256(pretrained)}.safetensors", pretrained)
    serve(flower, terms)
    seen, _ = followed(folder_of(tmp_path, terms), start)
    assert all(torch.equal(seen.weights[0][name].float(), pretrained[name]) for name in start)


def test_nothing_of_a_federation_says_where_a_site_keeps_its_records(
    tmp_path: Path, flower: FlowerStandIn, charter: Charter, hospital: Make
) -> None:
    serve(flower, charter)
    for file in (tmp_path / "server").rglob("*"):
        if file.is_file():
            assert b"sites/" not in file.read_bytes()
            assert str(tmp_path).encode() not in file.read_bytes()
    assert json.loads(charter.to_json())["settings"]["sites"][0]["shard"] == ""
