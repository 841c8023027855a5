"""A real hospital decides by its own policy, ledger and records, whatever the server asks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

from hbdp_fed.data import Records, write_shard
from hbdp_fed.errors import SettingError
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import Control, TrainRequest, parse_failure, parse_identity, parse_reply
from hbdp_fed.federation.hospital import _mapped
from hbdp_fed.federation.lengths import farthest, whole_norm
from hbdp_fed.federation.screened import Screening
from hbdp_fed.privacy import history_epsilon
from hbdp_fed.privacy.history import Segment
from hbdp_fed.privacy.ledger import verify
from hbdp_fed.privacy.site_policy import MAY_LEAVE
from hbdp_fed.types import ModelSpec, Weights
from tests.federation.conftest import LOCAL_STEPS, ROUNDS, SPEC, Runner
from tests.federation.deployed.conftest import POLICY, Hospital, Make, nudged

Ask = Callable[..., TrainRequest]


def _ledger(hospital: Hospital) -> list[dict[str, object]]:
    (file,) = hospital.folder.agreements.glob("*/ledger.jsonl")
    verify(file)
    return [json.loads(line) for line in file.read_text().splitlines()]


def _charges(hospital: Hospital) -> list[object]:
    return [line["round"] for line in _ledger(hospital) if line["kind"] == "charge"]


def test_a_hospital_sends_what_it_would_send_in_a_simulation(
    hospital: Make, request_of: Ask, run: Runner, settings: object, charter: Charter, start: Weights
) -> None:
    simulated = run(settings).updates[1][0]
    sent = hospital().update(request_of())
    assert simulated.hospital == "hospital-01"
    assert all(torch.equal(sent[name], simulated.delta[name]) for name in start)


def test_a_net_that_cannot_be_clipped_is_refused_before_and_in_every_round(
    hospital: Make, request_of: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixing(*_: object, **__: object) -> None:
        raise SettingError("model.net", "UNet cannot be clipped per record: 'a' (Mixing) mixes records")

    monkeypatch.setattr("hbdp_fed.federation.hospital.check_clippable", mixing)
    own = hospital()
    assert own.refusal(own.enrolled()) == "refused: UNet cannot be clipped per record: 'a' (Mixing) mixes records"
    assert "'a' (Mixing) mixes records" in own.refusal(request_of())
    assert _charges(own) == []


def test_a_charter_that_the_policy_allows_is_agreed_to_and_entered(hospital: Make) -> None:
    own = hospital()
    assert parse_identity(own.enrolled()) == "hospital-01"
    (plan,) = _ledger(own)
    mechanism = own.charter.settings.sites[0].plan.mechanism
    assert (plan["kind"], plan["steps_planned"]) == ("plan", ROUNDS * LOCAL_STEPS)
    expected = history_epsilon(
        [Segment(mechanism.noise_multiplier, mechanism.sample_rate, mechanism.steps)], delta=1e-5
    )
    assert plan["eps_planned"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (replace(POLICY, highest_epsilon=8.0), "above the ceiling of 8"),
        (replace(POLICY, lowest_records=21), "20 records are fewer than the least of 21"),
        (replace(POLICY, allowed_tasks=("multiclass",)), "the task 'binary' is not allowed, only: multiclass"),
        (replace(POLICY, allowed_models=("resnet9",)), "the model 'cnn' is not allowed, only: resnet9"),
        (replace(POLICY, secure_noise=True), "only secure noise is allowed"),
    ],
)
def test_what_the_policy_forbids_is_refused_before_and_in_every_round(
    hospital: Make, request_of: Ask, policy: object, reason: str
) -> None:
    own = hospital(policy=policy)
    assert reason in own.refusal(own.enrolled())
    assert reason in own.refusal(request_of())
    assert [line["kind"] for line in _ledger(own)] == ["refusal", "refusal"]
    assert reason in own.folder.log_file.read_text()


def test_a_policy_that_changes_counts_from_the_next_message_on(hospital: Make, request_of: Ask) -> None:
    own = hospital()
    own.enrolled()
    stricter = hospital(policy=replace(POLICY, highest_epsilon=8.0))
    assert "above the ceiling of 8" in stricter.refusal(request_of())
    assert _charges(own) == []


def test_the_ceiling_is_for_all_federations_together(
    hospital: Make, request_of: Ask, charter: Charter, start: Weights
) -> None:
    # One plan costs 1e6 / 7 * 6 or so; the second one, with another seed, would bring both above 1.2e6.
    policy = replace(POLICY, highest_epsilon=1.2e6)
    first = hospital(policy=policy)
    for number in range(1, ROUNDS + 1):
        first.update(request_of(number))
    again = replace(charter, settings=replace(charter.settings, seed=1))
    second = hospital(policy=policy, terms=again)
    assert "above the ceiling of 1.2e+06" in second.refusal(second.enrolled())


def test_a_budget_that_another_federation_spent_meanwhile_is_missed_in_the_round(
    hospital: Make, request_of: Ask, charter: Charter
) -> None:
    policy = replace(POLICY, highest_epsilon=1.2e6)
    first = hospital(policy=policy)
    second = hospital(policy=policy, terms=replace(charter, name="other"))
    first.enrolled()
    second.enrolled()  # nothing is spent yet
    for number in range(1, ROUNDS + 1):
        first.update(request_of(number))
    assert "above the ceiling" in second.refusal(request_of(1))


def test_records_that_are_not_the_charters_are_not_trained_on(hospital: Make, request_of: Ask) -> None:
    own = hospital()
    write_shard(
        own.folder.records_file, Records(images=torch.rand(19, 1, 12, 12), labels=torch.zeros(19, dtype=torch.int64))
    )
    assert "the charter says 20 records, and the hospital holds 19" in own.refusal(request_of())


def test_the_same_question_gets_the_same_answer_and_is_charged_once(hospital: Make, request_of: Ask) -> None:
    own = hospital()
    secure = replace(own, charter=replace(own.charter, settings=replace(own.charter.settings, secure_noise=True)))
    first = secure.update(request_of())
    # Noise that nobody can repeat: an answer computed anew would differ.
    second = secure.restarted().update(request_of())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert _charges(secure) == [1]


def test_another_question_in_an_answered_round_is_refused(hospital: Make, request_of: Ask, start: Weights) -> None:
    own = hospital(policy=replace(POLICY, tamper_check=False))
    own.update(request_of())
    other = request_of(weights=nudged(start, 1e-6))
    assert "round 1 was answered before, to another request" in own.refusal(other)
    assert "round 1 was answered before, to another request" in own.restarted().refusal(other)
    assert _charges(own) == [1]


def test_a_round_that_was_charged_and_never_answered_is_computed_under_the_same_charge(
    hospital: Make, request_of: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = hospital()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hbdp_fed.federation.hospital.play_round", killed)
        with pytest.raises(KeyboardInterrupt):
            own.asked(request_of())
    assert _charges(own) == [1]
    own.restarted().update(request_of())
    assert _charges(own) == [1]
    assert _ledger(own)[-1]["steps_spent"] == LOCAL_STEPS


def test_a_round_beyond_the_plan_is_refused(hospital: Make, request_of: Ask) -> None:
    own = hospital()
    for number in range(1, ROUNDS + 1):
        own.update(request_of(number))
    assert f"the plan has rounds 1 to {ROUNDS}" in own.refusal(request_of(ROUNDS + 1))
    assert f"it asks for {LOCAL_STEPS + 1} steps" in own.refusal(request_of(1, steps=LOCAL_STEPS + 1))
    assert _charges(own) == [1, 2]


def test_rounds_do_not_go_back(hospital: Make, request_of: Ask) -> None:
    own = hospital(policy=replace(POLICY, tamper_check=False))
    own.update(request_of(2))
    assert "round 1 is over; round 2 was answered" in own.refusal(request_of(1))


def test_another_model_than_the_charters_is_refused(hospital: Make, request_of: Ask, start: Weights) -> None:
    own = hospital()
    planted = ModelSpec("mlp", {"in_channels": 1, "num_classes": 2})
    assert "the model is another mlp than the charter's cnn" in own.refusal(replace(request_of(), architecture=planted))
    fewer = dict(list(start.items())[1:])
    assert "the weights do not fit the charter's model" in own.refusal(request_of(weights=fewer))
    assert _charges(own) == []


def test_other_weights_before_the_first_round_are_tampering(hospital: Make, request_of: Ask, start: Weights) -> None:
    own = hospital()
    assert "tampered with: the weights before the first round" in own.refusal(request_of(weights=nudged(start, 1e-9)))


def test_weights_that_moved_further_than_training_can_move_them_are_tampering(
    hospital: Make, request_of: Ask, charter: Charter, start: Weights
) -> None:
    own = hospital()
    own.update(request_of(1))
    allowed = farthest(charter.settings, start, rounds=1)
    direction = nudged({name: torch.zeros_like(value) for name, value in start.items()}, 1.0)
    length = whole_norm(direction)

    def moved(share: float) -> Weights:
        return {name: value + share * allowed / length * direction[name] for name, value in start.items()}

    assert "tampered with: the weights moved by" in own.refusal(request_of(2, weights=moved(1.01)))
    own.update(request_of(2, weights=moved(0.99)))


def test_honest_rounds_are_never_called_tampering(
    hospital: Make, run: Runner, settings: object, start: Weights
) -> None:
    witness = run(settings)
    own = hospital()
    for number in range(1, ROUNDS + 1):
        weights = {name: value.float() for name, value in witness.weights[number - 1].items()}
        own.update(TrainRequest(number, LOCAL_STEPS, SPEC, weights))


def test_only_figures_that_the_policy_names_leave(hospital: Make, request_of: Ask) -> None:
    own = hospital(policy=replace(POLICY, may_leave=("seconds",)))
    _, report = parse_reply(own.asked(request_of()))
    assert report.records is None
    assert report.records_seen is None
    for name in set(MAY_LEAVE) - {"records", "records_seen", "seconds"}:
        assert math.isnan(getattr(report, name))
    assert report.seconds > 0


def test_a_canary_in_a_path_or_a_file_name_leaves_in_no_message_and_no_log(
    hospital: Make,
    request_of: Ask,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = "DOE^JANE 1970"
    own = hospital(under=f"{canary}/mrn-77")
    replies = [own.enrolled(), own.asked(request_of())]
    _mapped.cache_clear()
    # Whatever breaks: the records' file, the policy, the folder itself.
    with monkeypatch.context() as patched:
        patched.setattr("hbdp_fed.federation.site_folder.read_shard", _denied)
        replies.append(own.asked(request_of(2)))
    own.folder.records_file.write_bytes(b"damaged")
    replies.append(own.asked(request_of(2)))
    own.folder.policy_file.write_text(f"highest_epsilon: {canary}\n")
    replies.append(own.asked(request_of(2)))
    own.folder.policy_file.unlink()
    replies.append(own.asked(request_of(2)))
    own.folder.path.rename(tmp_path / "gone")
    replies.append(own.asked(request_of(2)))
    assert [parse_failure(reply) is None for reply in replies] == [True, True, *[False] * 5]
    for reply in replies:
        assert not reply.has_error()
        assert canary.encode() not in b"".join(part for part in _bytes_of(reply.content))
        assert "mrn-77" not in repr(reply.content)
    written = [file for file in (tmp_path / "gone").rglob("*") if file.is_file() and file.name != "policy.yaml"]
    assert written
    for file in written:
        assert b"DOE^JANE" not in file.read_bytes(), file
        assert b"mrn-77" not in file.read_bytes(), file
    assert "DOE^JANE" not in caplog.text


def _denied(path: Path) -> Records:
    """As the system says no: with the path, and with an error that is no hospital's refusal."""
    raise PermissionError(13, "Permission denied", str(path))


def _bytes_of(content: RecordDict) -> list[bytes]:
    parts = [repr(content).encode()]
    for arrays in content.array_records.values():
        parts += [array.data for array in arrays.values()]
    return parts


def test_what_is_kept_between_rounds_survives_a_restart(
    hospital: Make, request_of: Ask, charter: Charter, start: Weights
) -> None:
    local = replace(
        charter.settings.local, correction="scaffold", optimizer=replace(charter.settings.local.optimizer, momentum=0.0)
    )
    terms = replace(charter, settings=replace(charter.settings, local=local))
    policy = replace(POLICY, tamper_check=False)
    c = {name: torch.full_like(value, 0.01, dtype=torch.float64) for name, value in start.items()}

    def second_update(*, restart: bool, under: str) -> Weights:
        own = hospital(policy=policy, terms=terms, under=under)
        own.update(replace(request_of(1), control=Control(c, {})))
        own = own.restarted() if restart else own
        return own.update(replace(request_of(2), control=Control(c, {})))

    kept, restored = second_update(restart=False, under="kept"), second_update(restart=True, under="killed")
    assert all(torch.equal(kept[name], restored[name]) for name in kept)


def test_a_model_that_no_machine_could_hold_is_not_built(hospital: Make, request_of: Ask, charter: Charter) -> None:
    spec = ModelSpec("cnn", {**SPEC.args, "width": 200_000})
    own = hospital(terms=replace(charter, architecture=spec))
    assert "weights; at most" in own.refusal(own.enrolled())
    # Whether or not the roll was called.
    assert "weights; at most" in own.refusal(replace(request_of(), architecture=spec))


def test_a_run_without_a_charter_is_refused(hospital: Make, request_of: Ask, charter: Charter) -> None:
    own = hospital()
    assert "the run has no charter" in own.refusal(own.asked(request_of(), charter=""))
    assert "the charter cannot be read" in own.refusal(own.asked(request_of(), charter="{}"))
    assert "a charter has no faults" in own.refusal(
        own.asked(
            request_of(),
            charter=charter.to_json().replace(
                '"faults": []', '"faults": [{"hospital": "x", "round": 1, "kind": "nan"}]'
            ),
        )
    )
    screened = replace(charter, settings=replace(charter.settings, screening=Screening("a", "b", SPEC, seed=1)))
    assert "a charter names no reference images" in own.refusal(own.asked(request_of(), charter=screened.to_json()))
