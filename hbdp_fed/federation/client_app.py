"""The hospital: a Flower client app that trains on its own records with its own noise."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hbdp_fed.data.contract import Records
from hbdp_fed.data.shards import read_shard
from hbdp_fed.errors import Refusal
from hbdp_fed.federation.codec import (
    RoundReport,
    TrainRequest,
    failure_content,
    identity_content,
    parse_request,
    reply_content,
)
from hbdp_fed.federation.faults import misbehave
from hbdp_fed.federation.local_round import play_round
from hbdp_fed.federation.screened import made_to_trap
from hbdp_fed.federation.secure_client import QUERIES, Asked, send_masked
from hbdp_fed.federation.secure_messages import TRAIN
from hbdp_fed.federation.settings import AppSettings, Site, resolved_settings
from hbdp_fed.federation.wire import MessageError
from hbdp_fed.types import ModelUpdate

_PARTITION = "partition-id"
SHARD = "shard"
"""Where a node's own configuration says that it keeps the hospital's records, if not where the settings say."""

_LEDGER = "ledger"


def make_client_app(settings_json: str | None = None) -> ClientApp:
    """The app that every hospital runs.

    Args:
        settings_json: The federation's settings in a simulation; None reads them from the run config.
    """
    app = ClientApp()

    @app.query()
    def identify(message: Message, context: Context) -> Message:
        return _answer(message, context, settings_json, lambda _, site: identity_content(hospital=site.plan.name))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answer(
            message,
            context,
            settings_json,
            lambda settings, site: _train(parse_request(message), settings, site, context),
        )

    @app.train(TRAIN)
    def train_masked(message: Message, context: Context) -> Message:
        return _answer(
            message,
            context,
            settings_json,
            lambda settings, site: send_masked(
                Asked(message, settings, site.plan.name, context.state),
                lambda request: _computed(request, settings, site, context),
            ),
        )

    for action, work in QUERIES.items():
        app.query(action)(_answering(work, settings_json))
    return app


def _answering(work: Callable[[Asked], RecordDict], settings_json: str | None) -> Callable[[Message, Context], Message]:
    """How a hospital answers one of the questions of a secure sum."""

    def answer(message: Message, context: Context) -> Message:
        return _answer(
            message,
            context,
            settings_json,
            lambda settings, site: work(Asked(message, settings, site.plan.name, context.state)),
        )

    return answer


def _answer(
    message: Message,
    context: Context,
    settings_json: str | None,
    work: Callable[[AppSettings, Site], RecordDict],
) -> Message:
    """Do the work and answer with its result, or with the traceback: an error reply of Flower's would lose it."""
    hospital = f"partition {context.node_config.get(_PARTITION)}"
    try:
        settings = resolved_settings(context, settings_json)
        site = settings.sites[int(context.node_config[_PARTITION])]
        hospital = site.plan.name
        return Message(work(settings, site), reply_to=message)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server has to learn it with the hospital's name
        # A message that cannot be read was not acted on: nothing was computed.
        kind = "refused" if isinstance(error, Refusal | MessageError) else "exception"
        content = failure_content(hospital=hospital, kind=kind, details=traceback.format_exc())
        return Message(content, reply_to=message)


def _train(request: TrainRequest, settings: AppSettings, site: Site, context: Context) -> RecordDict:
    if settings.secure_aggregation:
        raise Refusal(f"refused: round {request.round} asks for an update without masks")
    update, report = _computed(request, settings, site, context)
    return misbehave(reply_content(update, report), settings.faults, hospital=report.hospital, round=request.round)


def _computed(
    request: TrainRequest, settings: AppSettings, site: Site, context: Context
) -> tuple[ModelUpdate, RoundReport]:
    planned = site.plan.mechanism.steps
    if settings.screening is not None:
        # Before anything is booked: a model that is refused costs no step.
        problem = made_to_trap(
            request, settings.screening, site.plan, local=settings.local, local_steps=settings.local_steps
        )
        if problem is not None:
            raise Refusal(f"refused: round {request.round}: the model was tampered with: {problem}")
    steps_spent = charge_ledger(context.state, round=request.round, steps=request.steps, planned=planned)
    records = _own_records(str(context.node_config.get(SHARD, site.shard)))
    return play_round(request, settings, site, records=records, state=context.state, steps_spent=steps_spent)


@lru_cache(maxsize=64)
def _own_records(shard: str) -> Records:
    """A hospital's records; a worker process that plays several hospitals keeps each one's shard mapped."""
    return read_shard(Path(shard))


def charge_ledger(state: RecordDict, *, round: int, steps: int, planned: int) -> int:
    """Book ``steps`` in the hospital's own ledger, before they are taken, and return the steps spent so far.

    The noise is calibrated to the planned steps, so a hospital that took one more would break its budget whatever the
    server says. It also answers no round twice: asked again with other weights, it would draw the same batch under
    the same noise, and the difference of the two answers would have none.

    Args:
        state: The hospital's persistent Flower state; changed in place.
        round: The request's number.
        steps: Steps asked for, at least 1.
        planned: T, the steps that the noise was calibrated to.

    Raises:
        Refusal: if the plan is used up, the number of steps is not positive, or the round was answered.
    """
    record = state.config_records.get(_LEDGER)
    rounds: list[int] = list(record["rounds"]) if record is not None else []  # type: ignore[arg-type]
    spent = int(record["steps"]) if record is not None else 0  # type: ignore[arg-type]
    if steps < 1:
        raise Refusal(f"refused: round {round} asks for {steps} steps")
    if round in rounds:
        raise Refusal(f"refused: round {round} was answered before")
    if spent + steps > planned:
        raise Refusal(
            f"refused: round {round} asks for {steps} steps, but {spent} of the {planned} planned ones are spent"
        )
    state[_LEDGER] = ConfigRecord({"rounds": [*rounds, round], "steps": spent + steps})
    return spent + steps
