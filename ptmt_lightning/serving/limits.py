"""Limits that protect the server: which hosts it answers for, how large and slow requests may be, how many may wait."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_HEAD = 2**16  # largest request line with headers, in bytes
MAX_BODY = 2**20  # largest body of a request, in bytes
_BODY_SECONDS = 10.0  # time for the body of a request to arrive
BUSY = "the server is busy; try again later"


class HeadLimits:
    """ASGI middleware that refuses large headers with status 431, and requests for other hosts with 400.

    A page of another site whose name leads to this machine (DNS rebinding) could otherwise use the server.

    Args:
        app: the application to protect.
        hosts: names and addresses that the ``Host`` header may have, without ports; None for any.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        self.app = app
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        size += sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
        if size > MAX_HEAD:
            await refuse(431, f"the request's headers have more than {MAX_HEAD} bytes", scope, receive, send)
        elif self.hosts is not None and host is not None and _without_port(host) not in self.hosts:
            reason = (
                f"this server does not answer for the host {host[:100]!r}; ptmt serve --allowed-hosts says for which"
            )
            await refuse(400, reason, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()


class Limits:
    """ASGI middleware that limits POST requests: their size, their number, and the time until they are answered.

    A body that arrives too slowly is answered with status 408, one that is too large with 413. A request that finds too
    many others waiting, or has waited too long itself, is answered with 503; one whose client has gone is dropped.

    Args:
        app: the application to protect.
        max_pending: largest number of requests that may wait for an answer.
        timeout: seconds that a request may wait for its answer.
    """

    def __init__(self, app: ASGIApp, *, max_pending: int, timeout: float) -> None:
        self.app, self.max_pending, self.timeout = app, max_pending, timeout
        self.pending = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or answer it here if it exceeds a limit."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(_body(receive), _BODY_SECONDS)
        except TimeoutError:
            await refuse(408, f"the request did not arrive within {_BODY_SECONDS:g} seconds", scope, receive, send)
            return
        except OverflowError:
            # The connection stays open for a while and takes the rest, as else the client may not see the answer.
            reason = f"the request has more than {MAX_BODY} bytes; split it"
            await refuse(413, reason, scope, receive, send, close=False)
            return
        if body is None:  # the client has disconnected
            return
        if self.pending >= self.max_pending:
            await refuse(503, BUSY, scope, receive, send)
            return
        with ExitStack() as place:
            self.pending += 1
            place.callback(self._leave)
            await self._answer(body, scope, receive, send, place)

    def _leave(self) -> None:
        self.pending -= 1

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send, place: ExitStack) -> None:
        waiting: list[Message] = [{"type": "http.request", "body": body}]
        has_answer = False

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        async def send_and_leave(message: Message) -> None:
            nonlocal has_answer
            has_answer = True
            place.close()  # how fast the client takes its answer holds nobody up
            await send(message)

        answering = asyncio.ensure_future(self.app(scope, replay, send_and_leave))
        leaving = asyncio.ensure_future(receive())  # the client hangs up, or has its answer
        try:
            await asyncio.wait({answering, leaving}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if answering.done() or has_answer:
                await answering
            elif not leaving.done():
                answering.cancel()
                await refuse(503, BUSY, scope, receive, send)
        finally:
            answering.cancel()
            leaving.cancel()


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > MAX_BODY:
            raise OverflowError
    return b"".join(parts)


async def refuse(
    status: int, reason: str, scope: Scope, receive: Receive, send: Send, *, close: bool = True
) -> None:  # fmt: skip
    """Answer a request with what is wrong with it.

    Args:
        status: status of the answer.
        reason: what is wrong.
        scope: the request.
        receive: ASGI's way to the request's body.
        send: ASGI's way to the client.
        close: close the connection afterwards.
    """
    headers = ({"Connection": "close"} if close else {}) | ({"Retry-After": "1"} if status == 503 else {})
    await JSONResponse({"detail": reason}, status, headers)(scope, receive, send)


async def invalid_request(_: Request, error: Exception) -> JSONResponse:
    """Return status 422 with what is wrong, but not the request itself, which may be huge or not even JSON."""
    assert isinstance(error, RequestValidationError)
    problems: list[dict[str, Any]] = list(error.errors())
    reasons = [f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}"[:500] for problem in problems[:10]]
    return JSONResponse({"detail": "; ".join(reason.removeprefix(": ") for reason in reasons)}, 422)
