"""Who is behind which Flower node, and whose answer a message is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from hbdp_fed.errors import HospitalFailure, shown
from hbdp_fed.federation.answers import Answer, Expected, Failure, duplicate, examine, missing
from hbdp_fed.federation.codec import parse_failure, parse_identity
from hbdp_fed.federation.simulated_grid import LOST
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


def call_roll(
    grid: Grid,
    hospitals: tuple[str, ...],
    *,
    timeout_s: float,
    registered: Callable[[], Mapping[int, str]] | None = None,
    known: Mapping[str, int] | None = None,
    on_failure: Callable[[Failure], None] = lambda _: None,
) -> Roster:
    """Wait until every hospital's node is there and ask each for its name.

    Args:
        grid: Where the nodes are.
        hospitals: Who has to answer.
        timeout_s: Seconds that they are waited for, and then have for their answer.
        registered: Tells under which name each node that is online was registered, where somebody keeps a register:
            then nobody else is asked, and an answer has to have that name. None asks everybody.
        known: Nodes of hospitals that answered an earlier roll-call of this federation. They need not be there.
        on_failure: Told of an answer that ends the federation before its first round.

    Raises:
        HospitalFailure: if a hospital is missing after that, an answer cannot be read, a hospital refuses, or two nodes
            claim the same name.
    """
    deadline = time.monotonic() + timeout_s
    found: dict[str, int] = {}
    while True:
        nodes = _assembled(grid, hospitals, deadline, registered, known or {})
        away = _asked_for_names(grid, nodes, found, timeout_s, registered is not None, on_failure)
        if away is None:
            break
        if time.monotonic() > deadline:
            raise away
        # It left before it could answer, and may return.
        time.sleep(_POLL_S)
    everybody = {**(known or {}), **found}
    absent = [name for name in hospitals if name not in everybody]
    if absent:
        raise HospitalFailure(", ".join(absent), "no answer to the roll-call")
    return Roster(hospitals=hospitals, node_ids=tuple(everybody[name] for name in hospitals))


def _asked_for_names(
    grid: Grid,
    nodes: Mapping[int, str | None],
    found: dict[str, int],
    timeout_s: float,
    is_registered: bool,
    on_failure: Callable[[Failure], None],
) -> HospitalFailure | None:
    """Ask those whose name is not found yet, and enter it; what kept one from answering, if it may yet."""
    content, away = RecordDict(), None
    missing_ones = [node_id for node_id in nodes if node_id not in found.values()]
    calls = (Message(content, node_id, MessageType.QUERY) for node_id in missing_ones)
    for reply in grid.send_and_receive(calls, timeout=timeout_s):
        node_id = reply.metadata.src_node_id
        if reply.has_error() and reply.error.code == LOST and is_registered:
            away = HospitalFailure(str(nodes.get(node_id)), reply.error.reason or "it is offline")
            continue
        try:
            _raise_on_failure(reply, nodes.get(node_id), on_failure)
            name = parse_identity(reply)
        except MessageError as error:
            raise HospitalFailure(f"node {node_id}", f"its answer to the roll-call cannot be read: {error}") from error
        if name in found:
            raise HospitalFailure(name, "two nodes answered with this name")
        if is_registered and name != nodes[node_id]:
            raise HospitalFailure(str(nodes[node_id]), f"its node says that it is {shown(name)}")
        found[name] = node_id
    return away


def _assembled(
    grid: Grid,
    hospitals: tuple[str, ...],
    deadline: float,
    registered: Callable[[], Mapping[int, str]] | None,
    known: Mapping[str, int],
) -> Mapping[int, str | None]:
    """The nodes to ask, in their order, with their registered names where there is a register."""
    while True:
        if registered is None:
            nodes: dict[int, str | None] = dict.fromkeys(sorted(grid.get_node_ids()))
        else:
            nodes = {node_id: name for node_id, name in sorted(registered().items()) if name in hospitals}
        if len(nodes) >= len(hospitals):
            return nodes
        if time.monotonic() > deadline:
            here = set(nodes.values())
            missing_ones = [name for name in hospitals if name not in here and name not in known]
            if registered is not None and not missing_ones and nodes:
                return nodes
            told = f"; missing: {', '.join(missing_ones)}" if registered is not None else ""
            raise HospitalFailure(
                "the federation", f"{len(nodes)} of {len(hospitals)} hospitals connected in time{told}"
            )
        time.sleep(_POLL_S)


def _raise_on_failure(reply: Message, name: str | None, on_failure: Callable[[Failure], None]) -> None:
    """Nobody can be left out before it is known who is there."""
    node = name or f"node {reply.metadata.src_node_id}"
    if reply.has_error():
        raise HospitalFailure(node, reply.error.reason or f"error {reply.error.code}")
    told = parse_failure(reply)
    if told is not None:
        hospital = name or told[0]
        on_failure(Failure(hospital, 0, "refused" if told[1] == "refused" else "exception", told[2]))
        raise HospitalFailure(hospital, told[2])
