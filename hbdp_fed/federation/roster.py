"""Who is behind which Flower node, and whose answer a message is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.answers import Answer, Expected, Failure, duplicate, examine, missing
from hbdp_fed.federation.codec import parse_failure, parse_identity
from hbdp_fed.federation.wire import MessageError

logger = logging.getLogger(__name__)

_POLL_S = 0.05


@dataclass(frozen=True)
class Roster:
    """The hospitals in their fixed order with their node ids, which Flower draws at random for every run.

    Attributes:
        hospitals: Names, in the order of the settings.
        node_ids: The node of each.
    """

    hospitals: tuple[str, ...]
    node_ids: tuple[int, ...]

    def nodes_of(self, hospitals: Sequence[str]) -> Sequence[int]:
        """The nodes of these hospitals."""
        nodes = dict(zip(self.hospitals, self.node_ids, strict=True))
        return [nodes[hospital] for hospital in hospitals]

    def collect(
        self, asked: Sequence[str], replies: Iterable[Message], expected: Expected
    ) -> Iterator[Answer | Failure]:
        """A round's answers in the order of those who were asked, each as soon as all before it are there.

        Floating-point addition is not associative, so the order in which updates are added up must not depend on who
        was quick. What comes early waits: as many answers as there are hospitals at work, not as many as were asked.

        Args:
            asked: The hospitals, in their order.
            replies: Their answers, in any order.
            expected: What an answer has to be like.
        """
        for item in self.in_order(asked, replies, expected.round):
            yield item if isinstance(item, Failure) else examine(item[1], item[0], expected)

    def in_order(
        self, asked: Sequence[str], replies: Iterable[Message], number: int
    ) -> Iterator[tuple[str, Message] | Failure]:
        """The same answers before anybody has looked into them, with their hospitals.

        Args:
            asked: The hospitals, in their order.
            replies: Their answers, in any order.
            number: The round's.
        """
        names = dict(zip(self.nodes_of(asked), asked, strict=True))
        early: dict[str, Message] = {}
        heard: set[str] = set()
        place = 0
        for message in replies:
            hospital = names.get(message.metadata.src_node_id)
            if hospital is None:
                logger.warning("an answer of node %d, which was not asked", message.metadata.src_node_id)
            elif hospital in heard:
                yield duplicate(hospital, number)
            else:
                heard.add(hospital)
                early[hospital] = message
            while place < len(asked) and asked[place] in early:
                yield asked[place], early.pop(asked[place])
                place += 1
        for hospital in asked[place:]:
            if hospital in early:
                yield hospital, early.pop(hospital)
            else:
                yield missing(hospital, number)


def call_roll(grid: Grid, hospitals: tuple[str, ...], *, timeout_s: float) -> Roster:
    """Wait until every hospital's node is there and ask each for its name.

    Raises:
        HospitalFailure: if a hospital is missing after ``timeout_s`` seconds, an answer cannot be read, or two nodes
            claim the same name.
    """
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < len(hospitals):
        if time.monotonic() > deadline:
            raise HospitalFailure("the federation", f"{len(nodes)} of {len(hospitals)} hospitals connected in time")
        time.sleep(_POLL_S)
    content = RecordDict()
    calls = (Message(content, node_id, MessageType.QUERY) for node_id in nodes)
    found: dict[str, int] = {}
    for reply in grid.send_and_receive(calls, timeout=timeout_s):
        try:
            _raise_on_failure(reply)
            name = parse_identity(reply)
        except MessageError as error:
            node = f"node {reply.metadata.src_node_id}"
            raise HospitalFailure(node, f"its answer to the roll-call cannot be read: {error}") from error
        if name in found:
            raise HospitalFailure(name, "two nodes answered with this name")
        found[name] = reply.metadata.src_node_id
    absent = [name for name in hospitals if name not in found]
    if absent:
        raise HospitalFailure(", ".join(absent), "no answer to the roll-call")
    return Roster(hospitals=hospitals, node_ids=tuple(found[name] for name in hospitals))


def _raise_on_failure(reply: Message) -> None:
    """Nobody can be left out before it is known who is there."""
    if reply.has_error():
        raise HospitalFailure(f"node {reply.metadata.src_node_id}", reply.error.reason or f"error {reply.error.code}")
    told = parse_failure(reply)
    if told is not None:
        raise HospitalFailure(told[0], told[2])
