"""A grid whose waiting can be ended, so that an interrupted run does not hang on answers that will never come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

_POLL_S = 0.1


class Stopped(RuntimeError):
    """The run was interrupted while the server waited for answers."""


class StoppableGrid(Grid):
    """Another grid, except that waiting for answers ends with :class:`Stopped` once an event is set.

    Flower runs a simulation's server in a thread that outlives an interrupted main thread and keeps the process alive
    until its answers are there or the round times out.

    Args:
        grid: The grid that does the work.
        stop: Ends the waiting when it is set.
    """

    def __init__(self, grid: Grid, stop: threading.Event) -> None:
        self._grid = grid
        self._stop = stop

    def set_run(self, run: Run) -> None:
        """Set the run of the underlying grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the underlying grid."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message of the underlying grid."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of the underlying grid."""
        if self._stop.is_set():
            raise Stopped
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send through the underlying grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Receive through the underlying grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until every answer is there or ``timeout`` seconds have passed.

        Raises:
            Stopped: once the event is set.
        """
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        answers: list[Message] = []
        while True:
            for message in self.pull_messages(waiting):
                answers.append(message)
                waiting.discard(message.metadata.reply_to_message_id)
            if not waiting or (deadline is not None and time.monotonic() > deadline):
                return answers
            if self._stop.wait(_POLL_S):
                raise Stopped
