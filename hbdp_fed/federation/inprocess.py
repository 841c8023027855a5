"""The engine without Ray: every hospital's app runs in this process, one after the other. For debugging and tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flwr.clientapp import ClientApp

from hbdp_fed.federation.simulated_grid import Answered, Job, Players


def play_in_process(client_app: ClientApp) -> Players:
    """Plays the nodes by calling the app. A call in this process cannot time out, and its process cannot be lost."""

    def play(jobs: Iterable[Job], timeout_s: float | None) -> Iterator[Answered]:
        for job in jobs:
            reply = client_app(job.message, job.context)
            yield Answered(job, reply, job.context.state)

    return play
