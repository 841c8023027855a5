"""Messages, ledger and averaging, each alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from flwr.app import Error, Message, RecordDict

from hbdp_fed.errors import Refusal
from hbdp_fed.federation.aggregation import average, mean_shares
from hbdp_fed.federation.answers import Answer, Expected, Failure
from hbdp_fed.federation.client_app import charge_ledger
from hbdp_fed.federation.codec import RoundReport, failure_content, parse_reply, reply_content
from hbdp_fed.federation.engine import default_workers
from hbdp_fed.federation.roster import Roster
from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT
from hbdp_fed.federation.wire import from_arrays, to_arrays
from hbdp_fed.types import ModelUpdate


def update(hospital: str, value: float, records: int = 1) -> ModelUpdate:
    return ModelUpdate(
        hospital=hospital, round=1, delta={"w": torch.tensor([value], dtype=torch.float64)}, num_records=records
    )


def report(hospital: str, **changes: float) -> RoundReport:
    figures = {
        "records": 1,
        "records_seen": 2,
        "steps": 3,
        "steps_spent": 4,
        "loss": 0.5,
        "clipped_share": 1.0,
        "noise_to_resolution": 17.5,
        "seconds": 0.1,
    }
    return RoundReport(hospital=hospital, round=1, status="ok", bytes=0, **{**figures, **changes})  # type: ignore[arg-type]


def question(node_id: int) -> Message:
    return Message(RecordDict(), node_id, "train")


def answer(node_id: int, content: RecordDict) -> Message:
    return Message(content, reply_to=question(node_id))


EXPECTED = Expected(
    round=1,
    like={"w": torch.zeros(1)},
    records=dict.fromkeys("abch", 1),
    norms=dict.fromkeys("abch", 10.0),
)


def collected(roster: Roster, *replies: Message) -> list[Answer | Failure]:
    return list(roster.collect(roster.hospitals, replies, EXPECTED))


def test_arrays_keep_every_bit_order_and_type() -> None:
    weights = {
        "z": torch.randn(2, 3, dtype=torch.float64),
        "a": torch.randn(4),
        "s": torch.tensor(1e-300, dtype=torch.float64),
    }
    found = from_arrays(to_arrays(weights))
    assert list(found) == ["z", "a", "s"]
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("ratio", [17.5, math.nan])
def test_a_report_travels_whole_with_nan_and_the_size_of_the_update(ratio: float) -> None:
    sent = report("h", loss=math.nan, noise_to_resolution=ratio)
    _, found = parse_reply(answer(5, reply_content(update("h", 1e-9), sent)))
    assert math.isnan(found.loss)
    assert found.bytes >= 8
    assert (found.records, found.records_seen, found.steps, found.steps_spent) == (1, 2, 3, 4)
    assert found.noise_to_resolution == pytest.approx(ratio, nan_ok=True)


def good(node_id: int, hospital: str) -> Message:
    return answer(node_id, reply_content(update(hospital, 0.0), report(hospital)))


@pytest.mark.parametrize("order", list(itertools.permutations([(9, "a"), (4, "b"), (7, "c")])))
def test_answers_come_in_the_hospitals_order_whatever_order_they_arrive_in(order: tuple[tuple[int, str], ...]) -> None:
    roster = Roster(hospitals=("a", "b", "c"), node_ids=(9, 4, 7))
    found = collected(roster, *(good(*who) for who in order))
    assert [item.update.hospital for item in found if isinstance(item, Answer)] == ["a", "b", "c"]
    assert [item.report.hospital for item in found if isinstance(item, Answer)] == ["a", "b", "c"]


def test_an_answer_is_handed_on_as_soon_as_all_before_it_are_there() -> None:
    roster = Roster(hospitals=("a", "b", "c"), node_ids=(1, 2, 3))
    taken = []

    def replies() -> Iterator[Message]:
        for node, name in ((2, "b"), (1, "a"), (3, "c")):
            taken.append(name)
            yield good(node, name)

    stream = roster.collect(roster.hospitals, replies(), EXPECTED)
    next(stream)
    assert taken == ["b", "a"]
    next(stream)
    assert taken == ["b", "a"]


def test_a_missing_answer_names_the_hospital_and_holds_nobody_up() -> None:
    roster = Roster(hospitals=("a", "b", "c"), node_ids=(1, 2, 3))
    first, second, third = collected(roster, good(3, "c"), good(1, "a"))
    assert isinstance(first, Answer)
    assert second == Failure("b", 1, "timeout", "no answer in round 1 within the time allowed")
    assert isinstance(third, Answer)


def test_the_first_of_two_answers_counts_and_the_second_is_named() -> None:
    roster = Roster(hospitals=("a", "b"), node_ids=(1, 2))
    replies = [good(1, "a"), answer(1, reply_content(update("a", 5.0), report("a"))), good(2, "b")]
    found = collected(roster, *replies)
    assert [item.update.delta["w"].item() for item in found if isinstance(item, Answer)] == [0.0, 0.0]
    assert [(item.hospital, item.kind) for item in found if isinstance(item, Failure)] == [("a", "duplicate")]


def test_an_answer_of_nobody_who_was_asked_is_left_aside() -> None:
    roster = Roster(hospitals=("a", "b"), node_ids=(1, 2))
    found = list(roster.collect(("a",), [good(2, "b"), good(1, "a")], EXPECTED))
    assert [item.update.hospital for item in found if isinstance(item, Answer)] == ["a"]


def delta(**arrays: torch.Tensor) -> ModelUpdate:
    return ModelUpdate(hospital="a", round=1, delta=arrays, num_records=1)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (reply_content(update("a", math.nan), report("a")), "not_finite"),
        (reply_content(update("a", math.inf), report("a")), "not_finite"),
        (reply_content(update("a", 10.5), report("a")), "oversize"),
        (reply_content(delta(w=torch.zeros(2, dtype=torch.float64)), report("a")), "wrong_shape"),
        (reply_content(delta(v=torch.zeros(1, dtype=torch.float64)), report("a")), "wrong_shape"),
        (reply_content(delta(w=torch.zeros(1, dtype=torch.float32)), report("a")), "wrong_dtype"),
        (reply_content(delta(), report("a")), "empty"),
        (RecordDict(), "empty"),
        (RecordDict({"arrays": to_arrays({"w": torch.zeros(1)})}), "unusable"),
        (reply_content(update("b", 0.0), report("b")), "unusable"),
        (reply_content(replace(update("a", 0.0), round=2), report("a")), "unusable"),
        (reply_content(update("a", 0.0), report("a", records=1000)), "unusable"),
        (failure_content(hospital="a", kind="refused", details="no"), "refused"),
        (failure_content(hospital="a", kind="exception", details="no"), "exception"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_for_what_it_is(content: RecordDict, kind: str) -> None:
    [found] = collected(Roster(hospitals=("a",), node_ids=(1,)), answer(1, content))
    assert isinstance(found, Failure)
    assert (found.hospital, found.round, found.kind) == ("a", 1, kind)
    assert found.details


def test_an_update_as_long_as_clipping_allows_is_used() -> None:
    content = reply_content(update("a", -10.0), report("a"))
    [found] = collected(Roster(hospitals=("a",), node_ids=(1,)), answer(1, content))
    assert isinstance(found, Answer)


@pytest.mark.parametrize(("code", "kind"), [(TIMED_OUT, "timeout"), (LOST, "lost"), (1, "exception")])
def test_errors_of_the_runtime_are_named(code: int, kind: str) -> None:
    reply = Message(Error(code=code, reason="because"), reply_to=question(1))
    [found] = collected(Roster(hospitals=("a",), node_ids=(1,)), reply)
    assert found == Failure("a", 1, kind, "because")  # type: ignore[arg-type]


def test_averages_by_hand() -> None:
    updates = [update("a", 1.0, records=1), update("b", 5.0, records=3)]
    assert average(updates, "records")["w"].item() == 4.0
    assert average(updates, "equal")["w"].item() == 3.0


def test_shares_of_the_mean_by_hand() -> None:
    assert mean_shares([1, 3], "records") == (0.25, 0.75)
    assert mean_shares([1, 3], "equal") == (0.5, 0.5)


def test_the_ledger_counts_steps_over_rounds_and_stops_at_the_plan() -> None:
    state = RecordDict()
    assert charge_ledger(state, round=1, steps=4, planned=9) == 4
    assert charge_ledger(state, round=2, steps=4, planned=9) == 8
    with pytest.raises(Refusal, match="8 of the 9 planned ones are spent"):
        charge_ledger(state, round=3, steps=2, planned=9)
    with pytest.raises(Refusal, match="round 2 was answered before"):
        charge_ledger(state, round=2, steps=1, planned=9)
    assert charge_ledger(state, round=3, steps=1, planned=9) == 9


def test_there_are_never_more_workers_than_hospitals_and_never_none() -> None:
    assert default_workers(num_hospitals=1, threads_per_client=1) == 1
    assert default_workers(num_hospitals=50, threads_per_client=10_000) == 1
