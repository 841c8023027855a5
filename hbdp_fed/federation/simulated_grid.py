"""A Flower grid whose nodes are simulated: whoever plays the hospitals is handed a message and the node's state."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

TIMED_OUT, LOST = 101, 102
"""Codes of the errors that stand for an answer that was not given in time, and for a process that ended."""

_SERVER_NODE_ID = 1
_RUN_ID = 1


@dataclass(frozen=True)
class Job:
    """A message for one node.

    Attributes:
        message: What the node is to answer.
        context: The node's own context. Its state is what a hospital keeps between rounds.
    """

    message: Message
    context: Context


@dataclass(frozen=True)
class Answered:
    """What became of a job.

    Attributes:
        job: The job.
        reply: The node's answer, or an error where it could not give one.
        state: The node's state afterwards; None where nobody knows it, because the process was lost with it.
    """

    job: Job
    reply: Message
    state: RecordDict | None


Players = Callable[[Iterable[Job], float | None], Iterator[Answered]]
"""Plays nodes: answers jobs in any order, each within so many seconds of its start (None: however long it takes)."""


class SimulatedGrid(Grid):
    """A Flower grid on one machine or one Ray cluster. Answers stream: each is handed on as soon as it is there.

    Args:
        players: Plays the nodes.
        states: What each node keeps between rounds; node i (from 0) is Flower's partition i. Renewed in place.
        twice: Answers that arrive twice, as (partition, round).
    """

    def __init__(
        self, players: Players, states: list[RecordDict], twice: Collection[tuple[int, int]] = frozenset()
    ) -> None:
        # What Flower's own runtimes tell a process about itself; messages carry it.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER_NODE_ID, 1
        self._players = players
        self._run = Run.create_empty(run_id=_RUN_ID)
        first = _SERVER_NODE_ID + 1
        self._contexts = {
            first + i: Context(
                run_id=_RUN_ID,
                node_id=first + i,
                node_config={"partition-id": i, "num-partitions": len(states)},
                state=state,
                run_config=UserConfig(),
            )
            for i, state in enumerate(states)
        }
        self._states = states
        self._twice = {(first + i, str(number)) for i, number in twice}
        self._pushed: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node (deprecated in Flower in favour of ``Message`` itself)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages; they are played when somebody asks for their answers."""
        identifiers = []
        for message in messages:
            identifiers.append(_identified(message))
            self._pushed[identifiers[-1]] = message
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to the messages with these identifiers, each once."""
        return list(self._played((self._pushed.pop(i) for i in list(message_ids) if i in self._pushed), None))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Play the messages and yield the answers as they come. Messages are taken when there is somebody to play them.

        Args:
            messages: To the nodes.
            timeout: Seconds that each node is given for its answer, not counting its wait for its turn.
        """
        return self._played((message for message in messages if _identified(message)), timeout)

    def _played(self, messages: Iterable[Message], timeout_s: float | None) -> Iterator[Message]:
        jobs = (Job(message, self._contexts[message.metadata.dst_node_id]) for message in messages)
        for answered in self._players(jobs, timeout_s):
            context, metadata = answered.job.context, answered.job.message.metadata
            if answered.state is not None:
                context.state = answered.state
                self._states[int(context.node_config["partition-id"])] = answered.state
            yield answered.reply
            if (metadata.dst_node_id, metadata.group_id) in self._twice:
                yield answered.reply


def run_simulated(
    server_app: ServerApp,
    players: Players,
    states: list[RecordDict],
    twice: Collection[tuple[int, int]] = frozenset(),
) -> None:
    """Run a whole federation, the server app in this thread; what it raises is raised here."""
    grid = SimulatedGrid(players, states, twice)
    context = Context(
        run_id=_RUN_ID, node_id=_SERVER_NODE_ID, node_config={}, state=RecordDict(), run_config=UserConfig()
    )
    server_app(grid=grid, context=context)


def _identified(message: Message) -> str:
    identifier = str(uuid.uuid4())
    message.metadata.__dict__["_message_id"] = identifier  # Flower's grids assign it in the same way
    return identifier
