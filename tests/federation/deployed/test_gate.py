"""What the SuperLink's gate lets through."""

from __future__ import annotations

import logging

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hbdp_fed.federation.superlink import gate

OUTSIDE, HERE = ("192.0.2.7", 5000), ("127.0.0.1", 5000)


async def _inside(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes came through")


def _from(client: tuple[str, int]) -> TestClient:
    routes = [Route("/{path:path}", _inside, methods=["GET", "POST"])]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=gate)]), client=client
    )


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/push-messages", "/docs", "/v1/fleet"]
)
def test_only_the_servers_own_machine_reaches_what_is_not_for_hospitals(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Whatever ran a federation in this process has silenced Flower.
    caplog.set_level(logging.WARNING, logger="flwr")
    assert _from(HERE).post(path, content=b"x").status_code == 200
    refused = _from(OUTSIDE).post(path, content=b"x")
    assert refused.status_code == 403
    assert f"turned away: {path} of 192.0.2.7" in caplog.text


def test_hospitals_reach_what_is_for_them() -> None:
    reply = _from(OUTSIDE).post("/v1/fleet/pull-messages", content=b"12345")
    assert (reply.status_code, reply.text) == (200, "5 bytes came through")


def test_a_hospital_answers_under_its_own_number_alone() -> None:
    def answer(signer: int, source: int) -> bytes:
        message = Message(metadata=Metadata(src_node_id=source))
        return PushMessagesRequest(node=Node(node_id=signer), messages_list=[message]).SerializeToString()

    client = _from(OUTSIDE)
    own = answer(7, 7)
    assert client.post("/v1/fleet/push-messages", content=own).text == f"{len(own)} bytes came through"
    assert client.post("/v1/fleet/push-messages", content=answer(7, 8)).status_code == 403
    assert client.post("/v1/fleet/push-messages", content=b"\xff\xff").status_code == 400


def test_a_request_that_is_too_long_is_not_read() -> None:
    client = _from(OUTSIDE)
    for length, code in (("9999999999999", 413), ("-1", 413)):
        assert client.post("/v1/fleet/x", content=b"", headers={"content-length": length}).status_code == code
    endless = client.post("/v1/fleet/x", content=iter([b"a", b"b"]))
    assert endless.status_code == 411
