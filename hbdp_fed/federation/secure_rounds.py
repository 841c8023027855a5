"""The server's part in a secure sum: it forwards what it cannot read, and adds up what looks like noise to it.

What it learns is the mean of those who answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from hbdp_fed.errors import HospitalFailure, QuorumLost
from hbdp_fed.federation.answers import Expected, Failure, Phase, told_failure
from hbdp_fed.federation.codec import TrainRequest, messages_to
from hbdp_fed.federation.lengths import longest_answers, whole_norm
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.roster import Roster
from hbdp_fed.federation.rounds import Listener, take_failure
from hbdp_fed.federation.secure_messages import (
    DEAL,
    ENROL,
    QUERY_TYPES,
    RELEASE,
    TRAIN_TYPE,
    MaskRequest,
    PublicKeys,
    add_mask_request,
    deal_content,
    number_content,
    parse_dealt,
    parse_keys,
    parse_released,
    survivors_content,
)
from hbdp_fed.federation.secure_plan import grid_for
from hbdp_fed.federation.secure_sum import (
    Enrolment,
    FixedPoint,
    MaskedSum,
    MaskedUpdate,
    ReleasedShares,
    add_masked,
    safe_threshold,
    unmask_sum,
)
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.wire import MessageError
from hbdp_fed.types import ALL_HOSPITALS, ModelUpdate, Weights

_Told = TypeVar("_Told")

_THRESHOLD = "the threshold of federation.secure_aggregation"

_ROUNDING = 1e-9
"""What float64 may add to a length."""


@dataclass(frozen=True)
class OpenSum:
    """A sum whose hospitals hold each other's shares.

    Attributes:
        request: What they are asked to train.
        asked: Who was asked for a key.
        enrolment: Who dealt shares: those whose masks cancel.
        norms: By hospital, how long its update can be.
        shares: By hospital that was asked, its weight in the mean; they add up to 1.
        grid: What weighted updates are rounded to.
        sealed: By recipient, the shares for it, by the hospital that dealt them.
    """

    request: TrainRequest
    asked: tuple[str, ...]
    enrolment: Enrolment
    norms: Mapping[str, float]
    shares: Mapping[str, float]
    grid: FixedPoint
    sealed: Mapping[str, Mapping[str, bytes]] = field(repr=False)


class SecureRounds:
    """Asks hospitals for a sum of their updates.

    Args:
        roster: Who is who.
        settings: The federation's.
    """

    def __init__(self, roster: Roster, settings: AppSettings) -> None:
        self._roster = roster
        self._settings = settings
        self._plans = {site.plan.name: site.plan for site in settings.sites}

    def open(self, grid: Grid, request: TrainRequest, asked: Sequence[str], listener: Listener) -> OpenSum:
        """Let hospitals exchange keys and shares. Whoever fails at that is not part of the sum.

        Args:
            grid: Carries the messages.
            request: What they will be asked to train.
            asked: Whom.
            listener: Who is told of failures.

        Raises:
            HospitalFailure: at the first failure, where ``on_failure`` is ``abort``.
            QuorumLost: if too few are left.
        """
        number, threshold = request.round, safe_threshold(len(asked))
        keys = self._ask(grid, ENROL, number_content(number), asked, number, "enrol", listener, parse_keys)
        self._need(keys, asked, threshold, number)
        enrolment = Enrolment(number, tuple(keys), tuple(own.masks for own in keys.values()), threshold)
        sealed = self._deal(grid, enrolment, keys, listener)
        self._need(sealed, asked, threshold, number)
        norms = longest_answers([self._plans[name] for name in asked], self._settings.local, request)
        shares = self._settings.shares_of(asked)
        return OpenSum(
            request=request,
            asked=tuple(asked),
            enrolment=enrolment.among(tuple(sealed)),
            norms=norms,
            shares=shares,
            grid=grid_for(norms, shares),
            sealed={
                recipient: {dealer: own.get(recipient, b"") for dealer, own in sealed.items()} for recipient in sealed
            },
        )

    def questions(self, opened: OpenSum) -> Iterator[Message]:
        """The request to each hospital of a sum, with the shares that the others sealed for it."""
        hospitals = opened.enrolment.hospitals
        plain = messages_to(opened.request, dict(zip(hospitals, self._roster.nodes_of(hospitals), strict=True)))
        for name, message in zip(hospitals, plain, strict=True):
            wanted = MaskRequest(sealed=opened.sealed[name], weight=opened.shares[name], grid=opened.grid)
            yield Message(
                add_mask_request(message.content, wanted),
                message.metadata.dst_node_id,
                TRAIN_TYPE,
                group_id=message.metadata.group_id,
            )

    def close(self, grid: Grid, opened: OpenSum, replies: Iterable[Message], listener: Listener) -> Weights:
        """The mean of those that answered.

        Args:
            grid: Carries the messages.
            opened: The sum.
            replies: The answers to :meth:`questions`, in any order.
            listener: Who is told of reports, of failures, and of the sum.

        Returns:
            float64, off by at most the ``largest_error`` that the listener is told.

        Raises:
            HospitalFailure: at the first failure, where ``on_failure`` is ``abort``, and if the sum is no sum of
                updates that clipping, noise and learning rate allow.
            QuorumLost: if too few sent an update, or released their shares.
        """
        enrolment, number = opened.enrolment, opened.request.round
        total = add_masked(self._masked(opened, replies, listener), enrolment=enrolment, grid=opened.grid)
        released = self._released(grid, opened, total, listener)
        try:
            found = unmask_sum(total, released, enrolment=enrolment, grid=opened.grid)
        except ValueError as error:
            raise HospitalFailure("the federation", f"round {number}: {error}") from error
        self._check_length(opened, total, found)
        complete = total.hospitals == opened.asked
        # As in the plain mean, whose weights add up to 1 but for rounding.
        whole = 1.0 if complete else sum(opened.shares[name] for name in total.hospitals)
        mean = found if complete else {name: value / whole for name, value in found.items()}
        update = ModelUpdate(
            hospital=ALL_HOSPITALS,
            round=number,
            delta=mean,
            num_records=sum(self._plans[name].num_records for name in total.hospitals),
        )
        listener.on_sum(
            RevealedSum(
                update=update,
                weights={name: opened.shares[name] for name in total.hospitals},
                asked=len(opened.asked),
                threshold=enrolment.threshold,
                grid=opened.grid,
                largest_error=opened.grid.max_error(len(total.hospitals)) / whole,
            )
        )
        return mean

    def _deal(
        self, grid: Grid, enrolment: Enrolment, keys: Mapping[str, PublicKeys], listener: Listener
    ) -> Mapping[str, Mapping[str, bytes]]:
        """By hospital that dealt, what it sealed for each other one."""

        def parse(message: Message, hospital: str, number: int) -> Mapping[str, bytes]:
            others = [name for name in enrolment.hospitals if name != hospital]
            return parse_dealt(message, hospital, number, recipients=others)

        content = deal_content(enrolment, [own.sealing for own in keys.values()])
        return self._ask(grid, DEAL, content, enrolment.hospitals, enrolment.round, "deal", listener, parse)

    def _masked(self, opened: OpenSum, replies: Iterable[Message], listener: Listener) -> Iterator[MaskedUpdate]:
        """The masked updates that can be used, one at a time."""
        request, hospitals = opened.request, opened.enrolment.hospitals
        expected = Expected(
            round=request.round,
            like=request.weights,
            records={name: plan.num_records for name, plan in self._plans.items()},
            norms={},
            grid=opened.grid,
        )
        used = []
        for item in self._roster.collect(hospitals, replies, expected):
            if isinstance(item, Failure):
                take_failure(item, self._settings, listener)
                continue
            listener.on_report(item.report)
            used.append(item.update.hospital)
            yield MaskedUpdate(item.update.hospital, item.update.round, item.update.delta)
        self._need(used, opened.asked, opened.enrolment.threshold, request.round)

    def _released(self, grid: Grid, opened: OpenSum, total: MaskedSum, listener: Listener) -> list[ReleasedShares]:
        """The shares that take the masks off, from as many as answered."""
        enrolment, number = opened.enrolment, opened.request.round
        dropped = [name for name in enrolment.hospitals if name not in total.hospitals]

        def parse(message: Message, hospital: str, number: int) -> ReleasedShares:
            return parse_released(
                message, hospital, number, survivors=total.hospitals, dropped=dropped, places=len(opened.asked)
            )

        content = survivors_content(number, total.hospitals)
        found = self._ask(grid, RELEASE, content, total.hospitals, number, "release", listener, parse)
        if len(found) < enrolment.threshold:
            raise QuorumLost(
                round=number,
                used=len(found),
                asked=len(total.hospitals),
                needed=enrolment.threshold,
                who=f"to unmask the sum, {_THRESHOLD}",
            )
        return list(found.values())

    def _ask(
        self,
        grid: Grid,
        action: str,
        content: RecordDict,
        asked: Sequence[str],
        number: int,
        phase: Phase,
        listener: Listener,
        parse: Callable[[Message, str, int], _Told],
    ) -> dict[str, _Told]:
        """What hospitals answer to one question, in their order; failures are told."""
        group = f"{number} {phase}"
        messages = (
            Message(content, node, QUERY_TYPES[action], group_id=group) for node in self._roster.nodes_of(asked)
        )
        replies = grid.send_and_receive(messages, timeout=self._settings.round_timeout_s)
        found = {}
        for item in self._roster.in_order(asked, replies, number):
            told = item if isinstance(item, Failure) else _read(*item, number, parse)
            if isinstance(told, Failure):
                take_failure(
                    Failure(told.hospital, told.round, told.kind, told.details, phase), self._settings, listener
                )
            else:
                hospital, answer = told
                found[hospital] = answer
        return found

    def _need(self, left: Iterable[str], asked: Sequence[str], threshold: int, number: int) -> None:
        count, wanted = len(list(left)), min(self._settings.min_hospitals, len(asked))
        if count < max(threshold, wanted):
            who = _THRESHOLD if threshold >= wanted else "federation.min_hospitals"
            raise QuorumLost(round=number, used=count, asked=len(asked), needed=max(threshold, wanted), who=who)

    def _check_length(self, opened: OpenSum, total: MaskedSum, found: Weights) -> None:
        """Nobody sees a single update, but the sum of honest ones is no longer than they can be together.

        What shares that were tampered with leave is as long as the whole grid is wide.
        """
        norm = whole_norm(found)
        size = sum(value.numel() for value in found.values())
        allowed = sum(opened.norms[name] * opened.shares[name] for name in total.hospitals)
        allowed = allowed * (1 + _ROUNDING) + opened.grid.max_error(len(total.hospitals)) * size**0.5
        if norm > allowed:
            raise HospitalFailure(
                "the federation",
                f"round {opened.request.round}: the sum has norm {norm:.3g}; clipping, noise and learning rate allow "
                f"{allowed:.3g}. A hospital sent a longer update, or shares that do not belong",
            )


def _read(
    hospital: str, message: Message, number: int, parse: Callable[[Message, str, int], _Told]
) -> tuple[str, _Told] | Failure:
    """A hospital's answer, or why it is not used."""
    failed = told_failure(message, hospital, number)
    if failed is not None:
        return failed
    if not message.content:
        return Failure(hospital, number, "empty", "the answer holds nothing")
    try:
        return hospital, parse(message, hospital, number)
    except MessageError as error:
        return Failure(hospital, number, "unusable", f"the answer cannot be read: {error}")
