"""The engine without Ray: every hospital's app runs in this process, one after the other. For debugging and tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_SERVER_NODE_ID = 1
_RUN_ID = 1


class InProcessGrid(Grid):
    """A Flower grid whose nodes answer at once: pushing a message runs the client app on it.

    Args:
        client_app: The app of every node.
        num_nodes: How many nodes there are; node i (from 0) is Flower's partition i.
    """

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        self._client_app = client_app
        self._run = Run.create_empty(run_id=_RUN_ID)
        first = _SERVER_NODE_ID + 1
        self._contexts = {
            first + i: Context(
                run_id=_RUN_ID,
                node_id=first + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=UserConfig(),
            )
            for i in range(num_nodes)
        }
        self._replies: dict[str, Message] = {}

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
        """Run the client app on each message; the answers wait for :meth:`pull_messages`."""
        identifiers = []
        for message in messages:
            identifier = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = identifier  # Flower's grids assign it in the same way
            self._replies[identifier] = self._client_app(message, self._contexts[message.metadata.dst_node_id])
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to the messages with these identifiers, each once."""
        return [self._replies.pop(identifier) for identifier in message_ids if identifier in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull. A call in this process cannot time out."""
        return self.pull_messages(list(self.push_messages(messages)))


def run_in_process(server_app: ServerApp, client_app: ClientApp, *, num_hospitals: int) -> None:
    """Run a whole federation in this process; what an app raises is raised here."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER_NODE_ID, 1
    grid = InProcessGrid(client_app, num_hospitals)
    context = Context(
        run_id=_RUN_ID, node_id=_SERVER_NODE_ID, node_config={}, state=RecordDict(), run_config=UserConfig()
    )
    server_app(grid=grid, context=context)
