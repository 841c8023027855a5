"""Secure sums through the real apps: the model is that of plain rounds, and nobody is shown a single update."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict, UserConfig
from scipy import stats

from hbdp_fed.errors import HospitalFailure, QuorumLost
from hbdp_fed.federation import secure_client, secure_rounds
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.codec import parse_failure, request_messages
from hbdp_fed.federation.engine import Simulated
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.secure_client import OF_A_ROUND
from hbdp_fed.federation.secure_messages import QUERY_TYPES, RELEASE, TRAIN_TYPE, survivors_content
from hbdp_fed.federation.secure_sum import FixedPoint, masked_update, safe_threshold
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.simulated_grid import SimulatedGrid
from hbdp_fed.federation.wire import from_arrays
from hbdp_fed.models import weights_sha256
from hbdp_fed.types import ALL_HOSPITALS, Weights
from tests.federation.test_federation import probe

TWO_DROP_OUT = (Fault("hospital-02", 1, "exception"), Fault("hospital-07", 1, "empty"))


def flat(weights: Weights) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in weights.values()])


def plain(settings: AppSettings) -> AppSettings:
    """The same federation, whose updates travel as they are."""
    return replace(
        settings, secure_aggregation=False, faults=tuple(fault for fault in settings.faults if fault.phase == "train")
    )


@pytest.mark.parametrize("faults", [(), TWO_DROP_OUT], ids=["everybody answers", "two drop out"])
def test_the_model_is_that_of_plain_rounds_to_the_stated_error(ten, run, faults: tuple[Fault, ...]) -> None:
    settings = replace(ten, faults=faults, rounds=1, local_steps=3)
    masked, unmasked = run(settings), run(plain(settings))
    revealed = masked.sums[1]
    left_out = {fault.hospital for fault in faults}
    assert revealed.hospitals == tuple(name for name in ten.hospitals if name not in left_out)
    assert (revealed.asked, revealed.threshold) == (10, 7)
    # The error of the sum is that of the grid; what was left out, it is divided by.
    share = sum(site.plan.num_records for site in ten.sites if site.plan.name in revealed.hospitals) / 213
    assert revealed.largest_error == pytest.approx(len(revealed.hospitals) * revealed.grid.step / 2 / share)
    assert 0 < revealed.largest_error < 1e-12
    rounding = 1e-15  # of the float64 weights that the mean is added to, which are below 1
    assert float((flat(masked.final) - flat(unmasked.final)).abs().max()) <= revealed.largest_error + 4 * rounding
    assert float((flat(masked.final) - flat(masked.weights[0])).abs().max()) > 1e-3
    assert [(f.hospital, f.kind, f.phase) for f in masked.failures] == [(f.hospital, f.kind, "train") for f in faults]
    assert [report.hospital for report in masked.reports[1]] == list(revealed.hospitals)


def test_the_listener_is_shown_the_mean_and_no_update(ten, run) -> None:
    witness, unmasked = run(ten, probes=[probe(3)]), run(plain(ten), probes=[probe(3)])
    assert witness.updates == {}
    assert witness.probed == {}
    assert set(witness.sums) == {1, 2, 3}
    shares = ten.shares_of(ten.hospitals)
    sent = {1: unmasked.updates[1], 3: unmasked.probed[3]}
    for number, updates in sent.items():
        shown = witness.sums[number].update
        assert (shown.hospital, shown.num_records) == (ALL_HOSPITALS, 213)
        by_hand = sum((shares[update.hospital] * flat(update.delta) for update in updates), torch.zeros(()))
        tolerance = 1e-9 * float(by_hand.abs().max())
        torch.testing.assert_close(flat(shown.delta), by_hand, rtol=0, atol=tolerance)
    assert witness.answered_probes == [3]


def test_the_seed_gives_the_same_bits_and_the_rounds_leave_no_secret(ten, run) -> None:
    simulated = [Simulated.fresh(ten) for _ in range(2)]
    first, second = (run(ten, simulated=one) for one in simulated)
    assert weights_sha256(first.final) == weights_sha256(second.final)
    for state in simulated[0].states:
        assert not set(OF_A_ROUND) & set(state)
    elsewhere = run(replace(ten, secure_noise=True, rounds=1))
    assert weights_sha256(elsewhere.final) != weights_sha256(first.weights[1])


def test_what_a_run_writes_down_holds_no_secret_whatever_went_wrong(ten, run) -> None:
    """A hospital whose answer got lost was never told to release: its state keeps secrets, and the file does not."""
    settings = replace(ten, rounds=1, faults=TWO_DROP_OUT)
    simulated = Simulated.fresh(settings)
    run(settings, simulated=simulated)
    kept = [name for name, state in zip(ten.hospitals, simulated.states, strict=True) if set(OF_A_ROUND) & set(state)]
    # The one that raised has erased them; the one whose answer was empty thinks that it answered.
    assert kept == ["hospital-07"]
    written = simulated.to_plain()
    assert [set(state) for state in written] == [{"ledger"}] * 10
    assert json.dumps(written)


@pytest.mark.parametrize("phase", ["enrol", "deal", "release"])
@pytest.mark.parametrize("kind", ["exception", "empty"])
def test_failures_in_every_phase_are_named_and_survived(ten, run, phase: str, kind: str) -> None:
    witness = run(replace(ten, rounds=1, faults=(Fault("hospital-03", 1, kind, phase),)))
    assert [(f.hospital, f.round, f.kind, f.phase) for f in witness.failures] == [("hospital-03", 1, kind, phase)]
    others = [name for name in ten.hospitals if name != "hospital-03"]
    # Who did not release its shares had sent its update.
    assert list(witness.sums[1].hospitals) == (list(ten.hospitals) if phase == "release" else others)
    assert [report.hospital for report in witness.reports[1]] == list(witness.sums[1].hospitals)


@pytest.mark.parametrize("phase", ["enrol", "deal", "train", "release"])
def test_where_failures_are_not_tolerated_the_first_one_ends_the_run(ten, run, phase: str) -> None:
    fault = Fault("hospital-03", 1, "exception", phase)
    with pytest.raises(HospitalFailure) as failure:
        run(replace(ten, rounds=1, faults=(fault,), on_failure="abort"))
    assert failure.value.hospital == "hospital-03"


def test_what_goes_wrong_in_one_round_after_the_other_ends_below_the_threshold(ten, run) -> None:
    lost = tuple(Fault(f"hospital-{place:02d}", 1, "exception", phase) for place, phase in ((1, "enrol"), (4, "deal")))
    assert len(run(replace(ten, rounds=1, faults=lost)).sums[1].hospitals) == 8
    for phase in ("enrol", "deal", "train"):
        many = tuple(Fault(f"hospital-{place:02d}", 1, "exception", phase) for place in (2, 5))
        with pytest.raises(QuorumLost, match=r"round 1: only 6 of the 10 hospitals .* the threshold .* asks for 7"):
            run(replace(ten, rounds=1, faults=(*lost, *many)))
    # All of the eight may answer and too few of them help.
    silent = tuple(Fault(f"hospital-{place:02d}", 1, "exception", "release") for place in (2, 5))
    with pytest.raises(QuorumLost, match=r"only 6 of the 8 hospitals .* to unmask the sum, .* asks for 7"):
        run(replace(ten, rounds=1, faults=(*lost, *silent)))
    with pytest.raises(QuorumLost, match=r"only 8 of the 10 hospitals .* federation.min_hospitals asks for 9"):
        run(replace(ten, rounds=1, faults=lost, min_hospitals=9))


# What travels.


@pytest.fixture
def travelled(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every answer that reached the server."""
    seen: list[Message] = []
    original = SimulatedGrid.send_and_receive

    def watched(self: SimulatedGrid, messages: Any, *, timeout: float | None = None) -> Iterator[Message]:
        for reply in original(self, messages, timeout=timeout):
            seen.append(reply)
            yield reply

    monkeypatch.setattr(SimulatedGrid, "send_and_receive", watched)
    return seen


def test_the_words_that_travel_are_uniform_and_are_not_the_update(
    ten, run, travelled: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: dict[str, torch.Tensor] = {}

    def spied(update: Any, *, weight: float, grid: FixedPoint, **named: Any) -> Any:
        encoded[update.hospital] = grid.encode(flat(update.delta) * weight)
        return masked_update(update, weight=weight, grid=grid, **named)

    monkeypatch.setattr(secure_client, "masked_update", spied)
    grid = run(replace(ten, rounds=1)).sums[1].grid
    sent = {
        str(reply.content.config_records["config"]["hospital"]): torch.cat(
            [value.reshape(-1) for value in from_arrays(reply.content.array_records["arrays"]).values()]
        )
        for reply in travelled
        if reply.content.array_records
    }
    assert set(sent) == set(encoded) == set(ten.hospitals)

    def uniform(words: torch.Tensor) -> bool:
        return bool(stats.kstest(words.numpy() / grid.modulus, "uniform").pvalue > 1e-4)

    for name, words in sent.items():
        assert words.dtype == torch.int64
        assert uniform(words)
        assert uniform((words - encoded[name]) % grid.modulus)
        # The test has teeth.
        assert not uniform(encoded[name])
        assert float((words == encoded[name]).double().mean()) < 1e-3


def test_neither_secrets_nor_shares_lie_open_in_what_the_server_forwards(ten, run, travelled: list[Message]) -> None:
    """Of the secrets that hospitals draw, none appears in an answer; what is dealt has the length of what is sealed."""
    run(replace(ten, rounds=1))
    keys = [secure_client.secret_source(ten, name, 1, "keys") for name in ten.hospitals]
    secrets = [source(32) for source in keys for _ in range(3)]
    texts = [
        value
        for reply in travelled
        for record in reply.content.config_records.values()
        for values in record.values()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, bytes)
    ]
    assert len(texts) == 10 * (2 + 9 + 10)
    assert not any(secret in text for secret in secrets for text in texts)


# What hospitals refuse.


def hospital(settings: AppSettings) -> tuple[Callable[[Message], Message], Context]:
    """The app of the first hospital."""
    app = make_client_app(settings.to_json())
    context = Context(run_id=1, node_id=2, node_config={"partition-id": 0}, state=RecordDict(), run_config=UserConfig())
    return (lambda message: app(message, context)), context


def refusal(reply: Message) -> str:
    told = parse_failure(reply)
    assert told is not None
    assert told[1] == "refused"
    return told[2].strip().splitlines()[-1]


def test_an_update_without_masks_is_refused(ten, run) -> None:
    answer, _ = hospital(ten)
    [message] = request_messages(probe(1), [2])
    assert "asks for an update without masks" in refusal(answer(message))
    # Nor is a masked one sent without an enrolment.
    settled = Message(message.content, 2, TRAIN_TYPE)
    assert parse_failure(answer(settled)) is not None


def test_shares_are_released_once_and_for_no_list_that_is_too_short(ten, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of a real round goes on to ask: with fewer survivors, with others, without whom it asks, and again."""
    told: list[str] = []
    original = secure_rounds.SecureRounds._released

    def greedy(self: Any, grid: Any, opened: Any, total: Any, listener: Any) -> Any:
        def ask(survivors: tuple[str, ...]) -> None:
            [node] = self._roster.nodes_of(["hospital-04"])
            content = survivors_content(opened.request.round, survivors)
            [reply] = grid.send_and_receive([Message(content, node, QUERY_TYPES[RELEASE], group_id="greedy")])
            told.append(refusal(reply))

        names = total.hospitals
        for survivors in (
            names[:6],
            (*names[1:], "stranger"),
            names[4:] + names[:3],
            ("hospital-04",) * 7,
            (*names, "stranger"),
        ):
            ask(survivors)
        released = original(self, grid, opened, total, listener)
        for survivors in (names, names[:8]):
            ask(survivors)
        return released

    monkeypatch.setattr(secure_rounds.SecureRounds, "_released", greedy)
    run(replace(ten, rounds=1))
    few = "hospital-04 gives no shares: the sum must hold at least 7 of the enrolled hospitals and nobody else, got"
    assert [text.partition(": ")[2] for text in told] == [
        f"{few} {', '.join(ten.hospitals[:6])}",
        f"{few} {', '.join(ten.hospitals[1:])}, stranger",
        "refused: the update that hospital-04 sent is not said to be in the sum",
        f"{few} {', '.join(['hospital-04'] * 7)}",
        "survivors: must be a list of at most 10 texts",
        *["refused: there are no secrets for the sum of round 1, or no more"] * 2,
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 6}, "6 of 10 shares would give a secret; at least 7 have to be needed"),
        ({"masks": [bytes([place + 1]) * 32 for place in range(10)]}, "holds another key of hospital-01"),
        ({"round": 2}, "no secrets for the sum of round 2"),
    ],
)
def test_a_list_of_the_enrolled_that_does_not_protect_is_refused(
    ten, run, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    original = secure_rounds.deal_content

    def forged(*arguments: Any) -> RecordDict:
        content = original(*arguments)
        record = ConfigRecord({**content.config_records["config"], **change})
        return RecordDict({"config": record})

    monkeypatch.setattr(secure_rounds, "deal_content", forged)
    with pytest.raises(HospitalFailure, match=words):
        run(replace(ten, rounds=1, on_failure="abort"))


def test_a_share_that_was_tampered_with_is_noticed(ten, run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = secure_rounds.parse_released

    def forged(*arguments: Any, **named: Any) -> Any:
        released = original(*arguments, **named)
        own = {
            owner: replace(share, y=share.y ^ 2**100) if owner == "hospital-05" else share
            for owner, share in released.self_seed.items()
        }
        return replace(released, self_seed=own)

    monkeypatch.setattr(secure_rounds, "parse_released", forged)
    with pytest.raises(HospitalFailure, match=r"the sum has norm .* shares that do not belong"):
        run(replace(ten, rounds=1))


def test_the_grid_is_announced_and_no_update_depends_on_it(ten, run) -> None:
    """The bound is that of the lengths that were announced: twice the learning rate, twice the bound."""

    def announced(settings: AppSettings) -> FixedPoint:
        return run(replace(settings, rounds=1)).sums[1].grid

    faster = replace(ten.local, optimizer=replace(ten.local.optimizer, learning_rate=0.2))
    first, second = announced(ten), announced(replace(ten, local=faster))
    assert (first.summands, first.bits) == (10, 54)
    assert second.bound == pytest.approx(2 * first.bound)
    assert np.log2(second.step / first.step) == 1


def test_the_threshold_is_above_two_thirds() -> None:
    assert [safe_threshold(count) for count in (3, 4, 6, 10, 20)] == [3, 3, 5, 7, 14]


@pytest.mark.parametrize("kind", ["not_a_number", "infinite", "wrong_shape", "wrong_dtype", "oversize", "duplicate"])
def test_answers_that_cannot_be_words_are_kept_out(ten, run, kind: str) -> None:
    witness = run(replace(ten, rounds=1, faults=(Fault("hospital-03", 1, kind),)))
    [failure] = witness.failures
    named = {"wrong_shape": "wrong_shape", "wrong_dtype": "wrong_dtype", "oversize": "wrong_dtype"}
    assert failure.kind == {**named, "duplicate": "duplicate"}.get(kind, "exception")
    assert ("hospital-03" in witness.sums[1].hospitals) == (kind == "duplicate")


def test_a_second_request_for_an_update_is_refused_and_does_no_harm(ten, run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    original = secure_rounds.SecureRounds._released

    def greedy(self: Any, grid: Any, opened: Any, total: Any, listener: Any) -> Any:
        told.extend(refusal(reply) for reply in grid.send_and_receive(self.questions(opened)))
        return original(self, grid, opened, total, listener)

    monkeypatch.setattr(secure_rounds.SecureRounds, "_released", greedy)
    assert len(run(replace(ten, rounds=1)).sums[1].hospitals) == 10
    assert [text.partition(": ")[2] for text in told] == [
        "refused: in the sum of round 1 the hospital has 'masked', not 'dealt'"
    ] * 10
