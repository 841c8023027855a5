"""One round of questions and answers: who is asked, what is expected of them, and when too few have answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from flwr.app import Message

from hbdp_fed.errors import HospitalFailure, QuorumLost
from hbdp_fed.federation.answers import Expected, Failure
from hbdp_fed.federation.clock import Attendance, attendance
from hbdp_fed.federation.codec import RoundReport, TrainRequest, messages_to
from hbdp_fed.federation.lengths import longest_answers
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.roster import Roster
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.seeding import generator
from hbdp_fed.training.pace import Pace
from hbdp_fed.types import ModelUpdate, UpdateTap


def _unheard(attendance: Attendance) -> None:
    """What becomes of a round's attendance that nobody listens to."""


@dataclass(frozen=True)
class Listener:
    """Who is told of every answer, in the hospitals' order, on the server, one at a time.

    Attributes:
        on_update: The tap: gets exactly the updates that travelled and are used.
        on_report: Gets what a hospital told besides, after its update.
        on_failure: Gets the answers that are not used.
        on_attendance: Gets who is there and who is not, before the round's first answer.
        on_sum: Gets a round's sum where updates are masked. There the tap gets nothing: no update is ever seen.
    """

    on_update: UpdateTap
    on_report: Callable[[RoundReport], None]
    on_failure: Callable[[Failure], None]
    on_attendance: Callable[[Attendance], None] = _unheard
    on_sum: Callable[[RevealedSum], None] = lambda _: None


def participants(seed: int, number: int, hospitals: Sequence[str], fraction: float) -> Sequence[str]:
    """Who is asked in a training round: a public choice, by the seed alone, that everybody can plan with.

    Args:
        seed: The run's.
        number: The round, from 1.
        hospitals: All of them, in their order.
        fraction: Of the hospitals, in (0, 1]; at least one is asked.
    """
    if fraction == 1:
        return hospitals
    count = max(1, round(fraction * len(hospitals)))
    chosen = torch.randperm(len(hospitals), generator=generator(seed, "participants", number))[:count]
    return [hospitals[index] for index in sorted(chosen.tolist())]


def take_failure(failure: Failure, settings: AppSettings, listener: Listener) -> None:
    """Tell the listener, and go on without the answer where that is tolerated.

    Raises:
        HospitalFailure: where ``on_failure`` is ``abort``.
    """
    listener.on_failure(failure)
    if settings.on_failure == "abort":
        raise HospitalFailure(failure.hospital, f"round {failure.round}: {failure.details}")


class RoundTable:
    """Asks hospitals and hears them out.

    Args:
        roster: Who is who.
        settings: The federation's.
        online: Tells which of some nodes can be reached now, or waits until enough of them can; None where all can be,
            but for those that the settings say are offline.

    Attributes:
        roster: Who is who.
    """

    def __init__(
        self, roster: Roster, settings: AppSettings, online: Callable[[Sequence[int]], Iterable[int]] | None = None
    ) -> None:
        self.roster = roster
        self._online = online
        self._settings = settings
        self._records = {site.plan.name: site.plan.num_records for site in settings.sites}
        views = settings.local.multiplicity
        self._paces = {
            site.plan.name: Pace(site.profile, site.plan.expected_records * views) for site in settings.sites
        }

    def tolerant(self) -> RoundTable:
        """The same, but going on without whoever fails, whatever ``on_failure`` says."""
        return RoundTable(self.roster, replace(self._settings, on_failure="tolerate"), self._online)

    def attendance(
        self, request: TrainRequest, hospitals: Sequence[str], *, deadline_s: float | None = None
    ) -> Attendance:
        """Who of these hospitals is there for the request.

        Args:
            request: What is to be asked.
            hospitals: Whom, in their order.
            deadline_s: Simulated seconds that they are waited for; None waits for all of them.
        """
        found = attendance(
            hospitals,
            self._paces,
            seed=self._settings.seed,
            number=request.round,
            parameters=_size(request),
            steps=request.steps,
            corrected=request.control is not None,
            deadline_s=deadline_s,
        )
        if self._online is None:
            return found
        nodes = dict(zip(hospitals, self.roster.nodes_of(hospitals), strict=True))
        online = set(self._online(list(nodes.values())))
        return found.without([name for name, node in nodes.items() if node not in online])

    def questions(self, request: TrainRequest, attending: Attendance) -> Iterator[Message]:
        """The request to each hospital that answers in time.

        Stragglers are not asked: their answers would be computed for nobody, and leave the run as it is.
        """
        nodes = self.roster.nodes_of(attending.present)
        return messages_to(request, dict(zip(attending.present, nodes, strict=True)))

    def hear(
        self, request: TrainRequest, attending: Attendance, replies: Iterable[Message], listener: Listener
    ) -> Iterator[ModelUpdate]:
        """The updates that can be used, in the hospitals' order, each told to the listener before it is yielded.

        Args:
            request: What was asked.
            attending: Who is there. Being offline or late is no failure, whatever ``on_failure`` says.
            replies: Their answers, in any order.
            listener: Who is told.

        Raises:
            HospitalFailure: at the first failure, where ``on_failure`` is ``abort``.
            QuorumLost: after the last answer, if fewer than ``min_hospitals`` could be used.
        """
        used = 0
        listener.on_attendance(attending)
        for item in self.roster.collect(attending.present, replies, self._expected(request, attending.present)):
            if isinstance(item, Failure):
                take_failure(item, self._settings, listener)
                continue
            listener.on_update(item.update)
            listener.on_report(item.report)
            used += 1
            yield item.update
        needed = min(self._settings.min_hospitals, len(attending.planned))
        if used < needed:
            raise QuorumLost(
                round=request.round,
                used=used,
                asked=len(attending.planned),
                needed=needed,
                offline=len(attending.offline),
                late=len(attending.late),
            )

    def _expected(self, request: TrainRequest, hospitals: Sequence[str]) -> Expected:
        asked = set(hospitals)
        return Expected(
            round=request.round,
            like=request.weights,
            records=self._records,
            norms=longest_answers(
                [site.plan for site in self._settings.sites if site.plan.name in asked], self._settings.local, request
            ),
        )


def _size(request: TrainRequest) -> int:
    """Numbers in the model that travels."""
    return sum(value.numel() for value in request.weights.values())
