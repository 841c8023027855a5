"""Messages of somebody who means harm: each is read right or refused, and nothing else happens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict

from hbdp_fed.federation.answers import Answer, Expected, Failure, examine
from hbdp_fed.federation.codec import (
    Control,
    RoundReport,
    TrainRequest,
    failure_content,
    parse_failure,
    parse_identity,
    parse_reply,
    parse_request,
    reply_content,
    request_messages,
)
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.wire import MessageError, from_arrays, to_arrays
from hbdp_fed.types import ModelSpec, ModelUpdate
from tests.federation.spoiling import FEW_AND_MANY, header, look_at_many, message, npy, raw, told
from tests.federation.test_secure_rounds import hospital, refusal

DELTA = {"a": torch.arange(6, dtype=torch.float64).reshape(2, 3), "b": torch.tensor(0.5, dtype=torch.float64)}
START = {name: value.float() for name, value in DELTA.items()}
REPORT = RoundReport("h", 3, "ok", 9, 4, 2, 6, 0.5, 0.25, math.nan, 0.1, 0)
EXPECTED = Expected(3, DELTA, {"h": 9}, {"h": 1e3})


def reply() -> RecordDict:
    return reply_content(ModelUpdate("h", 3, DELTA, 9), REPORT)


def request() -> RecordDict:
    asked = TrainRequest(3, 2, ModelSpec("cnn", {"width": 4}), START, Control(DELTA, {"h": 1}))
    (sent,) = request_messages(asked, [1])
    return sent.content


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4), torch.randn(4, 3).t(), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor(1.5), torch.zeros(0, 3), torch.arange(5), torch.randn(2, dtype=torch.float64),
        torch.tensor([math.nan, math.inf]),
    ],
)  # fmt: skip
def test_what_is_sent_arrives_with_its_bits_type_and_strides(value: torch.Tensor) -> None:
    record = to_arrays({"w": value})
    found = from_arrays(record)["w"]
    # Flower's own reader is the other opinion.
    known = torch.from_numpy(np.array(record["w"].numpy()))
    assert found.dtype == known.dtype == value.dtype
    assert found.stride() == known.stride()
    assert found.numpy().tobytes() == known.numpy().tobytes()
    found += 1  # it is nobody else's memory


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (raw(b""), "w: is no array"),
        (raw(b"PK\x03\x04" + bytes(100)), "w: is no array"),
        (raw(b"\x80\x04\x95" + bytes(100)), "w: is no array"),
        (raw(npy(np.array([{}], dtype=object), allow_pickle=True)), "w: must be an array of float32, float64, int64"),
        (raw(npy(np.zeros(2, np.complex128))), "w: must be an array of"),
        (raw(npy(np.zeros(2, ">f8"))), "w: must be an array of"),
        (raw(npy(np.zeros(2, "U5"))), "w: must be an array of"),
        (raw(npy(np.zeros((1,) * 9))), "with at most 8 dimensions"),
        (raw(npy(np.zeros(2))[:-1]), "w: has 15 bytes for 2 numbers of float64"),
        (raw(npy(np.zeros(2)) + b"x"), "w: has 17 bytes for 2 numbers"),
        # A promise of 8 TiB, which must not be taken from the memory.
        (raw(header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }\n")), "for 1099511627776"),
        (raw(header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2,), }\n") + bytes(16)), "w: "),
        (raw(header("__import__('os').system('true')\n")), "w: is no array"),
        (raw(header("(" * 5000)), "w: is no array"),
        (raw(npy(np.zeros(2)), stype="torch.tensor"), "w: must be serialised as numpy.ndarray"),
    ],
)
def test_an_array_that_is_none_is_refused_and_runs_nothing(array: Array, problem: str) -> None:
    with pytest.raises(MessageError) as found:
        from_arrays(ArrayRecord({"w": array}))
    assert problem in str(found.value)


@pytest.mark.parametrize("name", ["a\x1b[2J", "x" * 300])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(MessageError, match="an array's name"):
        from_arrays(ArrayRecord({name: Array(np.zeros(2))}))


@pytest.mark.parametrize(
    ("record", "key", "value", "problem"),
    [
        ("config", "round", True, "round: must be a whole number"),
        ("config", "round", -1, "round: must be a whole number from 0"),
        ("config", "round", 2**60, r"round: must be a whole number from 0 to 2\^53"),
        ("config", "hospital", b"h", "hospital: must be a text"),
        ("config", "hospital", "h" * 300, "hospital: must be a text of at most 256"),
        ("config", "status", "\x1b]0;owned\x07", "status: holds control characters"),
        ("metrics", "records", math.inf, "records: must be a whole number"),
        ("metrics", "records_seen", 1.5, "records_seen: must be a whole number"),
        ("metrics", "loss", [0.1], "loss: must be a number"),
    ],
)
def test_an_answer_with_a_part_of_another_kind_is_named_and_used_by_nobody(
    record: str, key: str, value: Any, problem: str
) -> None:
    content = reply()
    content[record][key] = value  # type: ignore[index]
    with pytest.raises(MessageError, match=f"^{problem}"):
        parse_reply(message(content))
    found = examine(message(content), "h", EXPECTED)
    assert isinstance(found, Failure)
    assert found.kind == "unusable"


@pytest.mark.parametrize("part", ["config", "metrics", "arrays"])
def test_an_answer_without_a_part_is_named(part: str) -> None:
    content = reply()
    del content[part]
    with pytest.raises(MessageError, match=f"has no record '{part}'"):
        parse_reply(message(content))


def config(content: RecordDict, record: str, **values: Any) -> None:
    content.config_records[record].update(values)


@pytest.mark.parametrize(
    ("problem", "spoil"),
    [
        ("a: must be finite numbers", lambda c: c.update({"arrays": to_arrays({"a": torch.tensor([math.nan])})})),
        ("a: must be finite numbers of torch.float32", lambda c: c.update({"arrays": to_arrays(DELTA)})),
        ("architecture: is none", lambda c: config(c, "config", architecture="[" * 5000)),
        ("architecture: must have a name", lambda c: config(c, "config", architecture='{"name": 1, "args": {}}')),
        ("steps: must be a whole number", lambda c: config(c, "config", steps=1.0)),
        ("lost: must have a round", lambda c: config(c, "lost", rounds=[1, 2])),
        ("hospitals: must be a list", lambda c: config(c, "lost", hospitals=[1])),
    ],
)
def test_a_request_that_no_server_would_send_is_refused_at_the_hospital(
    problem: str, spoil: Callable[[RecordDict], Any]
) -> None:
    content = request()
    spoil(content)
    with pytest.raises(MessageError, match=f"^{problem}"):
        parse_request(message(content))


def test_a_request_that_cannot_be_read_is_refused_and_costs_nothing(settings: AppSettings) -> None:
    answer, context = hospital(settings)
    content = request()
    config(content, "config", steps="3")
    assert "MessageError: steps: must be a whole number" in refusal(answer(message(content)))
    assert not context.state


def test_what_is_not_spoiled_is_read() -> None:
    update, report = parse_reply(message(reply()))
    assert (update.hospital, report.steps_spent) == ("h", 6)
    assert isinstance(examine(message(reply()), "h", EXPECTED), Answer)
    asked = parse_request(message(request()))
    assert all(torch.equal(asked.weights[name], value) for name, value in START.items())
    assert asked.control is not None
    assert asked.control.lost == {"h": 1}


def test_a_report_of_a_failure_reaches_people_without_what_would_act_on_their_terminal() -> None:
    content = failure_content(hospital="h", kind="exception", details="x" * 30_000 + "\x1b[31mred\n")
    told = parse_failure(message(content))
    assert told is not None
    assert told[2].endswith("x\ufffd[31mred\n")
    assert len(told[2]) == 20_000
    del content.config_records["failure"]["details"]
    found = examine(message(content), "h", EXPECTED)
    assert isinstance(found, Failure)
    assert found.kind == "unusable"


# Whatever comes.


def look_at(content: RecordDict, parse: Callable[[Message], Any]) -> None:
    for reader in (parse, parse_identity, parse_failure):
        told(reader, content)
    found = examine(message(content), "h", EXPECTED)
    if isinstance(found, Answer):
        shapes = {name: value.shape for name, value in found.update.delta.items()}
        assert shapes == {name: value.shape for name, value in DELTA.items()}
        assert all(bool(torch.isfinite(value).all()) for value in found.update.delta.values())


@pytest.mark.parametrize(("genuine", "parse"), [(reply, parse_reply), (request, parse_request)])
@pytest.mark.parametrize("examples", FEW_AND_MANY)
def test_whatever_comes_is_read_or_refused(
    genuine: Callable[[], RecordDict], parse: Callable[[Message], Any], examples: int
) -> None:
    look_at_many(genuine, lambda content: look_at(content, parse), examples)
