"""Who is behind which Flower node, and what to make of a round's answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.codec import RoundReport, parse_failure, parse_identity, parse_reply
from hbdp_fed.types import ModelUpdate

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

    def collect(self, number: int, replies: Iterable[Message]) -> tuple[Sequence[ModelUpdate], Sequence[RoundReport]]:
        """Sort a round's answers into the hospitals' order, whatever order they came in.

        Raises:
            HospitalFailure: if a hospital raised, died, answered with something unusable, or did not answer in time.
        """
        names = dict(zip(self.node_ids, self.hospitals, strict=True))
        answers: dict[str, tuple[ModelUpdate, RoundReport]] = {}
        # In the hospitals' order here too: of several failures, reruns report the same one.
        for message in sorted(replies, key=lambda message: self.node_ids.index(message.metadata.src_node_id)):
            hospital = names[message.metadata.src_node_id]
            raise_on_failure(message, hospital)
            try:
                answers[hospital] = parse_reply(message)
            except (KeyError, ValueError) as error:
                raise HospitalFailure(hospital, f"unusable answer in round {number}: {error}") from error
        missing = [hospital for hospital in self.hospitals if hospital not in answers]
        if missing:
            raise HospitalFailure(", ".join(missing), f"no answer in round {number} within the time allowed")
        ordered = [answers[hospital] for hospital in self.hospitals]
        return [update for update, _ in ordered], [report for _, report in ordered]


def raise_on_failure(message: Message, hospital: str) -> None:
    """Raise :class:`HospitalFailure` if the message reports one, whether the app or Flower noticed it."""
    if message.has_error():
        raise HospitalFailure(hospital, message.error.reason or f"error code {message.error.code}")
    failure = parse_failure(message)
    if failure is not None:
        raise HospitalFailure(*failure)


def call_roll(grid: Grid, hospitals: tuple[str, ...], *, timeout_s: float) -> Roster:
    """Wait until every hospital's node is there and ask each for its name.

    Raises:
        HospitalFailure: if a hospital is missing after ``timeout_s`` seconds, or two nodes claim the same name.
    """
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < len(hospitals):
        if time.monotonic() > deadline:
            raise HospitalFailure("the federation", f"{len(nodes)} of {len(hospitals)} hospitals connected in time")
        time.sleep(_POLL_S)
    calls = [Message(RecordDict(), node_id, MessageType.QUERY) for node_id in nodes]
    found: dict[str, int] = {}
    for reply in grid.send_and_receive(calls, timeout=timeout_s):
        raise_on_failure(reply, f"node {reply.metadata.src_node_id}")
        name = parse_identity(reply)
        if name in found:
            raise HospitalFailure(name, "two nodes answered with this name")
        found[name] = reply.metadata.src_node_id
    missing = [name for name in hospitals if name not in found]
    if missing:
        raise HospitalFailure(", ".join(missing), "no answer to the roll-call")
    return Roster(hospitals=hospitals, node_ids=tuple(found[name] for name in hospitals))
