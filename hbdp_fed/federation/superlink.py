"""Flower's ``flower-superlink`` with a gate before it.

A SuperLink has one port for everybody: hospitals fetch messages there, and whoever runs the federation registers
hospitals and starts runs there. Flower's open edition asks the latter for nothing but to reach the port. So the gate
lets machines other than the server's own through to the hospitals' part alone, where every request is signed with a
registered key. It also sees to it that a hospital answers under no other hospital's number, which Flower leaves open,
and that no request is longer than a model may be.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Awaitable, Callable

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from google.protobuf.message import DecodeError
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

logger = logging.getLogger("flwr")

_FOR_HOSPITALS = "/v1/fleet/"
_ANSWERS = "/v1/fleet/push-messages"
_LONGEST = 2**31 - 1
_REFUSED = (401, 403, 412)

Next = Callable[[Request], Awaitable[Response]]


async def gate(request: Request, call_next: Next) -> Response:
    """Let a request through, or turn it away with a line in the log."""
    host = request.client.host if request.client else "somebody"
    refusal = _refusal(request) or await _false_name(request)
    if refusal is not None:
        logger.warning("turned away: %s of %s: %s", request.url.path, host, refusal[1])
        return PlainTextResponse(refusal[1], status_code=refusal[0])
    response = await call_next(request)
    if request.url.path.startswith(_FOR_HOSPITALS) and response.status_code in _REFUSED:
        logger.warning("turned away: %s of %s: no registered key has signed it", request.url.path, host)
    return response


def _refusal(request: Request) -> tuple[int, str] | None:
    if not request.url.path.startswith(_FOR_HOSPITALS) and not _is_from_here(request):
        return 403, "only the server's own machine may ask this"
    length = request.headers.get("content-length")
    if length is None and request.method == "POST":
        return 411, "a request must tell its length"
    if length is not None and not (length.isdecimal() and int(length) <= _LONGEST):
        return 413, f"a request must have at most {_LONGEST} bytes"
    return None


async def _false_name(request: Request) -> tuple[int, str] | None:
    """Who signs is checked by Flower; whether the answer inside is the signer's is checked here."""
    if request.url.path != _ANSWERS:
        return None
    try:
        asked = PushMessagesRequest.FromString(await request.body())
    except DecodeError:
        return 400, "this is no answer"
    if any(message.metadata.src_node_id != asked.node.node_id for message in asked.messages_list):
        return 403, f"node {asked.node.node_id} answers for another one"
    return None


def _is_from_here(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def log_failed_handshakes() -> None:
    """A line for everybody who does not get as far as a request: without TLS, or distrusting the server's certificate.

    Python's own event loop keeps these to its debug mode, and uvloop tells nobody: so the former is taken.
    """
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    at_fault = SSLProtocol._fatal_error

    def logged(self: SSLProtocol, exc: BaseException, message: str = "Fatal error on transport") -> None:
        if isinstance(exc, ssl.SSLError):
            peer = self._get_extra_info("peername") or ("somebody",)
            logger.warning("turned away: a connection of %s: %s", peer[0], exc.reason or type(exc).__name__)
        at_fault(self, exc, message)

    SSLProtocol._fatal_error = logged  # type: ignore[method-assign]


def main() -> None:
    """As ``flower-superlink``, with its arguments."""
    if not hasattr(extensions, "get_middleware"):
        raise SystemExit("this version of Flower has no place for a gate")
    log_failed_handshakes()
    extensions.get_middleware = lambda: (Middleware(BaseHTTPMiddleware, dispatch=gate),)
    flower_superlink()


if __name__ == "__main__":
    main()
