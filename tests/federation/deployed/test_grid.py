"""Questions between real machines: each is answered once, asked again where it was lost, and given up in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run

from hbdp_fed.federation import deployed_grid
from hbdp_fed.federation.deployed_grid import DeployedGrid
from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT
from tests.federation.deployed.conftest import FlowerNode


@dataclass
class Script:
    """Flower's grid by a script: what each pull brings.

    Attributes:
        pulls: By number of the pull, replies to the messages that were pushed so far, in their order of pushing.
    """

    pulls: list[dict[int, Message | str]]
    nodes: list[FlowerNode] = field(default_factory=list)
    pushed: list[Message] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def get_nodes(self) -> list[FlowerNode]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(f"m{len(self.pushed)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.pushed.append(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = set(message_ids)
        if not self.pulls:
            return []
        replies = []
        for place, content in self.pulls.pop(0).items():
            assert f"m{place}" in wanted
            message = self.pushed[place]
            replies.append(content if isinstance(content, Message) else answer(message, content))
        return replies


def answer(message: Message, text: str) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"text": text})}), reply_to=message)


def question(node: int) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"to": node})}), node, MessageType.TRAIN, group_id="3")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed_grid, "_POLL_S", 0.001)
    monkeypatch.setattr(deployed_grid, "_LOOK_S", 0.0)


def told(replies: Iterable[Message]) -> list[tuple[int, str | int]]:
    return [
        (
            reply.metadata.src_node_id,
            reply.error.code if reply.has_error() else str(reply.content.config_records["config"]["text"]),
        )
        for reply in replies
    ]


def test_answers_are_handed_on_as_they_come() -> None:
    script = Script([{1: "second"}, {}, {0: "first"}])
    assert told(DeployedGrid(script).send_and_receive([question(7), question(8)], timeout=5)) == [
        (8, "second"),
        (7, "first"),
    ]


def test_a_hospital_that_was_started_anew_is_asked_again_and_answers_once() -> None:
    script = Script([{}, {1: "after the restart"}])
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    script.nodes = [FlowerNode(7, "hospital-01", last_activated_at=soon)]
    assert told(DeployedGrid(script).send_and_receive([question(7)], timeout=5)) == [(7, "after the restart")]
    first, second = script.pushed[:2]
    assert second.metadata.dst_node_id == 7
    assert second.metadata.group_id == first.metadata.group_id
    assert second.content == first.content


def test_a_hospital_that_was_there_all_the_time_is_not_asked_again() -> None:
    script = Script([{}, {}, {0: "late"}])
    before = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    script.nodes = [FlowerNode(7, "hospital-01", last_activated_at=before)]
    assert told(DeployedGrid(script).send_and_receive([question(7)], timeout=5)) == [(7, "late")]
    assert len(script.pushed) == 1


def test_whoever_does_not_answer_in_time_is_an_error_of_its_own() -> None:
    assert told(DeployedGrid(Script([{1: "quick"}])).send_and_receive([question(7), question(8)], timeout=0.05)) == [
        (8, "quick"),
        (7, TIMED_OUT),
    ]


@pytest.mark.parametrize(
    "code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE]
)
def test_an_error_of_the_network_is_a_hospital_that_is_lost(code: int) -> None:
    script = Script([])
    grid = DeployedGrid(script)
    asked = question(7)
    replies = grid.send_and_receive([asked], timeout=5)
    script.pulls = [{0: Message(Error(code, "/srv/data/DOE^JANE"), reply_to=_numbered(asked))}]
    ((node, found),) = told(replies)
    assert (node, found) == (7, LOST)


def test_an_answer_under_another_hospitals_number_is_dropped() -> None:
    script = Script([])
    grid = DeployedGrid(script)
    mine, others = question(7), question(8)
    forged = answer(_numbered(mine), "forged")
    forged.metadata.__dict__["_src_node_id"] = 8
    script.pulls = [{0: forged}, {0: "true"}, {1: "other"}]
    assert told(grid.send_and_receive([mine, others], timeout=5)) == [(7, "true"), (8, "other")]


def _numbered(message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = "m0"
    return message
