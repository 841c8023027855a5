"""Questions and answers between real machines: as a simulation's grid, with hospitals that leave and return."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_LOOK_S = 2.0
"""How often it is looked whether a hospital was started anew."""

_FROM_THE_APP = (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.INVALID_FAB)


class Node(Protocol):
    """What Flower's server knows of a node."""

    node_id: int
    name: str
    status: str
    last_activated_at: str


class FlowerGrid(Protocol):
    """The part of Flower's own grid that is used."""

    @property
    def run(self) -> Run: ...  # noqa: D102
    def get_nodes(self) -> Iterable[Node]: ...  # noqa: D102
    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]: ...  # noqa: D102
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]: ...  # noqa: D102


@dataclass
class _Asked:
    """A question that is not answered yet: its text, the messages that carried it, and when the last one was sent."""

    message: Message
    message_ids: set[str]
    at: float


class DeployedGrid(Grid):
    """Flower's grid, with answers that stream, and with questions that are asked again.

    A hospital that is started anew while it computes has lost the question. It gets the same one again, and answers it
    at the charge that it has booked already. A hospital that is offline is known as lost as soon as Flower knows.

    Args:
        grid: Flower's own.
    """

    def __init__(self, grid: FlowerGrid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Refused: Flower's grid has its run."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online."""
        return [node.node_id for node in self._grid.get_nodes()]

    def names(self) -> Mapping[int, str]:
        """By node that is online, the name that it was registered under; a hospital cannot choose it."""
        return {node.node_id: node.name for node in self._grid.get_nodes()}

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's."""
        return self._grid.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As Flower's."""
        return self._grid.pull_messages(list(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Ask, and hand on each answer as soon as it is there; an error after ``timeout`` seconds without one."""
        begun = time.monotonic()
        waiting = [self._ask(message) for message in messages]
        looked = begun
        while waiting:
            for asked, reply in self._replies(waiting):
                waiting.remove(asked)
                yield reply
            if timeout is not None and time.monotonic() - begun > timeout:
                for asked in waiting:
                    reason = f"no answer within {timeout:g} seconds"
                    yield Message(Error(TIMED_OUT, reason), reply_to=asked.message)
                return
            if waiting and time.monotonic() - looked > _LOOK_S:
                self._ask_again(waiting)
                looked = time.monotonic()
            if waiting:
                time.sleep(_POLL_S)

    def _ask(self, message: Message) -> _Asked:
        return _Asked(message, set(filter(None, self._grid.push_messages([message]))), time.time())

    def _replies(self, waiting: list[_Asked]) -> Iterator[tuple[_Asked, Message]]:
        by_id = {message_id: asked for asked in waiting for message_id in asked.message_ids}
        done: set[int] = set()
        for reply in self._grid.pull_messages(list(by_id)):
            asked = by_id.get(reply.metadata.reply_to_message_id)
            if asked is None or id(asked) in done:
                continue
            if not reply.has_error() and reply.metadata.src_node_id != asked.message.metadata.dst_node_id:
                logger.warning("an answer of node %d, which was not asked that", reply.metadata.src_node_id)
                continue
            done.add(id(asked))
            yield asked, _settled(reply, asked)

    def _ask_again(self, waiting: list[_Asked]) -> None:
        """Those that were started anew since they were asked."""
        started = {node.node_id: _time_of(node.last_activated_at) for node in self._grid.get_nodes()}
        for asked in waiting:
            node = asked.message.metadata.dst_node_id
            if started.get(node, 0.0) > asked.at:
                logger.info("node %d was started anew and is asked again", node)
                asked.at = time.time()
                asked.message_ids.update(filter(None, self._grid.push_messages([_again(asked.message)])))


def _again(message: Message) -> Message:
    """The same question as a message of its own: Flower delivers each message once."""
    metadata = message.metadata
    return Message(message.content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id)


def _settled(reply: Message, asked: _Asked) -> Message:
    """The reply as one to the first message; an error of the network's is a hospital that is lost."""
    if reply.has_error():
        error = reply.error
        if error.code not in _FROM_THE_APP:
            error = Error(LOST, f"the hospital is offline, or was when it should have answered (code {error.code})")
        return Message(error, reply_to=asked.message)
    return reply


def _time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
