"""The app of a real hospital: it decides by its own policy, ledger and records, whatever the server asks.

Flower loads :data:`app` on a SuperNode whose node configuration names the hospital and its folder:

    --node-config 'hospital="north" site="/srv/hbdp_fed"'

The apps of a simulation and of a deployment share the messages and the round itself
(:func:`~hbdp_fed.federation.local_round.play_round`). What is told of a failure is its kind alone: words could name a
patient's file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hbdp_fed.data.contract import Records
from hbdp_fed.errors import DataFileError, Refusal, SettingError
from hbdp_fed.federation.agreement import Agreement, request_digest
from hbdp_fed.federation.charter import Charter, CharterError, charter_of
from hbdp_fed.federation.codec import (
    RoundReport,
    TrainRequest,
    failure_content,
    identity_content,
    parse_request,
    reply_content,
)
from hbdp_fed.federation.local_round import play_round
from hbdp_fed.federation.secure_client import QUERIES, Asked, send_masked
from hbdp_fed.federation.secure_messages import TRAIN
from hbdp_fed.federation.site_folder import SiteFolder, reason_of
from hbdp_fed.federation.site_screening import TO_THE_SERVER, references_at, trap_in
from hbdp_fed.federation.tampering import misshapen, tampered, too_large
from hbdp_fed.federation.wire import MessageError
from hbdp_fed.training import check_clippable
from hbdp_fed.types import ModelUpdate

logger = logging.getLogger(__name__)

HOSPITAL, SITE = "hospital", "site"
"""The keys of a SuperNode's own configuration: the hospital's name, and its folder."""


@dataclass(frozen=True)
class _Desk:
    """Where a message is dealt with.

    Attributes:
        message: The message.
        state: What the app keeps in memory between messages.
        agreement: The hospital's side of the charter.
    """

    message: Message
    state: RecordDict
    agreement: Agreement

    @property
    def folder(self) -> SiteFolder:
        return self.agreement.folder

    @property
    def charter(self) -> Charter:
        return self.agreement.charter


Work = Callable[[_Desk], RecordDict]


def make_hospital_app() -> ClientApp:
    """The app. It keeps nothing in memory that it could not lose, but for the secrets of a sum."""
    app = ClientApp()

    @app.query()
    def identify(message: Message, context: Context) -> Message:
        return _answered(message, context, _identify)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answered(message, context, _train)

    @app.train(TRAIN)
    def train_masked(message: Message, context: Context) -> Message:
        return _answered(message, context, _train_masked)

    for action, work in QUERIES.items():
        app.query(action)(_answering(work))
    return app


def _answering(work: Callable[[Asked], RecordDict]) -> Callable[[Message, Context], Message]:
    """How a hospital answers one of the questions of a secure sum."""

    def answer(message: Message, context: Context) -> Message:
        return _answered(message, context, lambda desk: work(_asked(desk)))

    return answer


def _answered(message: Message, context: Context, work: Work) -> Message:
    """Do the work and answer with its result, or say what kind of thing went wrong."""
    hospital = str(context.node_config.get(HOSPITAL, "a hospital without a name"))
    try:
        folder = _own_folder(context)
        with folder.alone():
            content = _content(message, context, work, hospital, folder)
    except Exception as error:  # noqa: BLE001 - Flower would send the error's words, which can name a patient's file
        logger.warning("%s: its folder cannot be used: %s", hospital, reason_of(error))
        content = failure_content(hospital=hospital, kind="exception", details=f"its own folder: {reason_of(error)}")
    return Message(content, reply_to=message)


def _own_folder(context: Context) -> SiteFolder:
    """The hospital's folder, by its own configuration.

    Raises:
        KeyError: if its SuperNode was started without it.
        NotADirectoryError: if it is none.
    """
    folder = SiteFolder(Path(str(context.node_config[SITE])))
    if HOSPITAL not in context.node_config or not folder.path.is_dir():
        raise NotADirectoryError
    return folder


def _content(message: Message, context: Context, work: Work, hospital: str, folder: SiteFolder) -> RecordDict:
    agreement: Agreement | None = None
    try:
        agreement = Agreement(folder, hospital, charter_of(context))
        agreement.restore(context.state)
        content = work(_Desk(message, context.state, agreement))
        agreement.remember(context.state)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server learns its kind and no more
        return _told(error, message, hospital, folder, agreement)
    return content


def _identify(desk: _Desk) -> RecordDict:
    """Answer the roll-call, which is where a hospital agrees to a charter or does not."""
    agreement = desk.agreement
    agreement.site  # noqa: B018 - raises where the charter does not name this hospital
    if problem := too_large(desk.charter.architecture):
        raise Refusal(f"refused: {problem}")
    records = _records(desk)
    agreement.seek_consent(len(records), records.groups)
    # After consent: a hospital tries no net that its policy does not allow.
    if problem := _unclippable(desk):
        raise Refusal(f"refused: {problem}")
    if desk.folder.policy.screening:
        references_at(desk.folder, records, desk.charter)
    desk.folder.tell(f"{desk.charter.name}: takes part")
    return identity_content(hospital=agreement.hospital)


def _train(desk: _Desk) -> RecordDict:
    if desk.charter.settings.secure_aggregation:
        raise Refusal("refused: the charter says that updates travel under masks")
    request = parse_request(desk.message)
    update, report = _computed(desk, request)
    return reply_content(update, report, withheld=desk.folder.policy.withheld)


def _train_masked(desk: _Desk) -> RecordDict:
    return send_masked(_asked(desk), lambda request: _computed(desk, request, may_repeat=False))


def _asked(desk: _Desk) -> Asked:
    """The message as secure aggregation takes it.

    Raises:
        Refusal: if the charter knows no secure aggregation.
    """
    if not desk.charter.settings.secure_aggregation:
        raise Refusal("refused: the charter knows no secure aggregation")
    withheld = desk.folder.policy.withheld
    return Asked(desk.message, desk.charter.settings, desk.agreement.hospital, desk.state, withheld)


def _computed(desk: _Desk, request: TrainRequest, *, may_repeat: bool = True) -> tuple[ModelUpdate, RoundReport]:
    """The round's answer, made now or before.

    Args:
        desk: Where.
        request: What is asked.
        may_repeat: Whether an answer may be given twice. Under masks it may not: of two sums that differ in who is in
            them, the difference is a hospital's own update.
    """
    agreement, charter = desk.agreement, desk.charter
    records = _records(desk)
    # Again before every round: the policy may have changed, and another federation may have begun.
    agreement.seek_consent(len(records), records.groups)
    if (problem := _problem(desk, request)) is not None:
        raise Refusal(f"refused: round {request.round}: {problem}")
    digest = request_digest(request)
    before = agreement.answered(request, digest)
    if before is not None:
        if not may_repeat:
            raise Refusal(f"refused: round {request.round} was answered before")
        desk.folder.tell(f"{charter.name}: round {request.round} again; sends the answer that it gave before")
        return before
    spent = agreement.charge(request, digest)
    agreement.remember_received(request)
    update, report = play_round(
        request, charter.settings, agreement.site, records=records, state=desk.state, steps_spent=spent
    )
    agreement.keep(request, update, report)
    desk.folder.tell(f"{charter.name}: round {request.round} answered; {spent} steps spent")
    return update, report


def _problem(desk: _Desk, request: TrainRequest) -> str | None:
    """Why a request is not what the charter says, or is not honest."""
    settings = desk.charter.settings
    if not 1 <= request.round <= settings.rounds:
        return f"the plan has rounds 1 to {settings.rounds}"
    if request.steps != settings.local_steps:
        return f"it asks for {request.steps} steps; the plan says {settings.local_steps} a round"
    problem = too_large(desk.charter.architecture) or misshapen(request, desk.charter) or _unclippable(desk)
    if problem is not None:
        return problem
    if desk.folder.policy.tamper_check:
        problem = tampered(request, desk.charter, desk.agreement.received())
    if problem is None and desk.folder.policy.screening:
        problem = _screened(desk, request)
    return None if problem is None else f"the model was tampered with: {problem}"


def _screened(desk: _Desk, request: TrainRequest) -> str | None:
    """What the server is told if the check on reference images flags the model; the hospital's own log says why."""
    found = trap_in(request, desk.agreement, references_at(desk.folder, _records(desk), desk.charter))
    if found is None:
        return None
    desk.folder.tell(f"{desk.charter.name}: round {request.round}: {found}")
    return TO_THE_SERVER


def _unclippable(desk: _Desk) -> str | None:
    """Why the charter's model cannot be clipped per record; None if it can. Seen here, whatever the server says."""
    records = _records(desk)
    try:
        check_clippable(
            desk.charter.architecture,
            desk.charter.settings.local,
            task=desk.charter.task,
            image_shape=records.images.shape[1:],
            label_shape=records.labels.shape[1:],
        )
    except SettingError as error:
        return error.problem
    return None


def _told(
    error: Exception, message: Message, hospital: str, folder: SiteFolder, agreement: Agreement | None
) -> RecordDict:
    """What the server is told of an error, once the hospital's own log and ledger have it."""
    refused = isinstance(error, Refusal | CharterError | MessageError)
    # A refusal's words are this project's own. Any other error's could be about a file.
    details = str(error) if refused else f"{reason_of(error)}; the hospital's own people have to look"
    if not refused and isinstance(error, DataFileError):
        details = "the hospital's own files cannot be read; its own people have to look"
        folder.tell(f"ERROR {error.path.name}: {error.problem}")
    round_ = message.metadata.group_id
    if refused and agreement is not None:
        with_number = int(round_) if round_.isdigit() and len(round_) < 10 else None
        try:
            agreement.refuse(with_number, details)
        except Exception as second:  # noqa: BLE001 - the refusal itself must arrive all the same
            folder.tell(f"ERROR the refusal could not be entered in the ledger: {reason_of(second)}")
    folder.tell(f"{'REFUSED' if refused else 'ERROR'} {details}")
    logger.warning("%s: %s", hospital, folder.without_paths(details))
    return failure_content(hospital=hospital, kind="refused" if refused else "exception", details=details)


def _records(desk: _Desk) -> Records:
    file = desk.folder.records_file
    return _mapped(file, file.stat().st_mtime_ns) if file.exists() else desk.folder.records()


@lru_cache(maxsize=1)
def _mapped(file: Path, changed: int) -> Records:
    return SiteFolder(file.parent).records()


app = make_hospital_app()
