"""Messages, ledger and averaging, each alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.client_app import charge_ledger
from hbdp_fed.federation.codec import RoundReport, from_arrays, parse_reply, reply_content, to_arrays
from hbdp_fed.federation.engine import default_workers
from hbdp_fed.federation.inprocess import _RUN_ID, _SERVER_NODE_ID, InProcessGrid
from hbdp_fed.federation.roster import Roster
from hbdp_fed.federation.stoppable import StoppableGrid, Stopped
from hbdp_fed.federation.strategy import average, mean_shares
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


def answer(node_id: int, content: RecordDict) -> Message:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER_NODE_ID, 1
    return Message(content, reply_to=Message(RecordDict(), node_id, "train"))


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


def test_answers_are_sorted_whatever_order_they_come_in() -> None:
    roster = Roster(hospitals=("a", "b", "c"), node_ids=(9, 4, 7))
    replies = [
        answer(node, reply_content(update(name, 0.0), report(name))) for node, name in ((7, "c"), (9, "a"), (4, "b"))
    ]
    updates, reports = roster.collect(1, replies)
    assert [u.hospital for u in updates] == [r.hospital for r in reports] == ["a", "b", "c"]


def test_a_missing_answer_names_the_hospital() -> None:
    roster = Roster(hospitals=("a", "b"), node_ids=(1, 2))
    with pytest.raises(HospitalFailure, match="b failed:\nno answer in round 1"):
        roster.collect(1, [answer(1, reply_content(update("a", 0.0), report("a")))])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_not_finite_never_reaches_the_model(value: float) -> None:
    roster = Roster(hospitals=("a",), node_ids=(1,))
    with pytest.raises(HospitalFailure, match=r"a failed:\nunusable answer .*not finite in w"):
        roster.collect(1, [answer(1, reply_content(update("a", value), report("a")))])


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
    with pytest.raises(PermissionError, match="8 of the 9 planned ones are spent"):
        charge_ledger(state, round=3, steps=2, planned=9)
    with pytest.raises(PermissionError, match="round 2 was answered before"):
        charge_ledger(state, round=2, steps=1, planned=9)
    assert charge_ledger(state, round=3, steps=1, planned=9) == 9


def test_there_are_never_more_workers_than_hospitals_and_never_none() -> None:
    assert default_workers(num_hospitals=1, threads_per_client=1) == 1
    assert default_workers(num_hospitals=50, threads_per_client=10_000) == 1


def test_waiting_for_answers_ends_when_the_run_is_interrupted() -> None:
    class Silent(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return []

    stop = threading.Event()
    answer(1, RecordDict())  # sets the identity that messages need
    app = ClientApp()

    @app.query()
    def reply(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    grid = StoppableGrid(Silent(app, num_nodes=1), stop)
    calls = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    assert grid.send_and_receive(calls, timeout=0.2) == []
    threading.Timer(0.3, stop.set).start()
    calls = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    with pytest.raises(Stopped):
        grid.send_and_receive(calls, timeout=60)
