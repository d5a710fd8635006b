"""Limits that protect the server: the size of a request, the time it takes, and the number of requests that wait."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**20  # largest body of a request, in bytes
BUSY = "the server is busy; try again later"
_BODY_SECONDS = 10.0  # time for the body of a request to arrive


class Limits:
    """ASGI middleware that limits POST requests: their size, their number, and the time until they are answered.

    A body that arrives too slowly is answered with status 408, one that is too large with 413. A request that finds too
    many others waiting, or has waited too long itself, is answered with 503.

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
            await _refuse(408, f"the request did not arrive within {_BODY_SECONDS:g} seconds", scope, receive, send)
            return
        except OverflowError:
            await _refuse(413, f"the request has more than {MAX_BODY} bytes; split it", scope, receive, send)
            return
        if body is None:  # the client has disconnected
            return
        if self.pending >= self.max_pending:
            await _refuse(503, BUSY, scope, receive, send)
            return
        self.pending += 1
        try:
            await self._answer(body, scope, receive, send)
        finally:
            self.pending -= 1

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        waiting: list[Message] = [{"type": "http.request", "body": body}]
        is_late = False

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        async def send_in_time(message: Message) -> None:
            if not is_late:
                await send(message)

        # Not cancelled when it is late: LitServe forgets a request only once it has the answer.
        answering = asyncio.ensure_future(self.app(scope, replay, send_in_time))
        await asyncio.wait({answering}, timeout=self.timeout)
        if answering.done():
            answering.result()
        else:
            is_late = True
            await _refuse(503, BUSY, scope, receive, send)


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


async def _refuse(status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Connection": "close"} | ({"Retry-After": "1"} if status == 503 else {})
    await JSONResponse({"detail": reason}, status, headers)(scope, receive, send)


async def invalid_request(_: Request, error: Exception) -> JSONResponse:
    """Return status 422 with what is wrong, but not the request itself, which may be huge or not even JSON."""
    assert isinstance(error, RequestValidationError)
    problems: list[dict[str, Any]] = list(error.errors())
    reasons = [f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}"[:500] for problem in problems[:10]]
    return JSONResponse({"detail": "; ".join(reason.removeprefix(": ") for reason in reasons)}, 422)
