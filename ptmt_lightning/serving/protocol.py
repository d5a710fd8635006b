"""Connections: how many there may be, and how long one may stay silent, or be slow to ask or to take its answer."""

from __future__ import annotations

import asyncio
import http
import json
import sys
from typing import Any

from h11 import RemoteProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from ptmt_lightning.serving.limits import MAX_HEAD
from ptmt_lightning.serving.metrics import Metrics
from ptmt_lightning.serving.request_log import log_request

HEAD_SECONDS = 5.0  # for the headers of a request to arrive; and of silence between two requests
_ANSWER_SECONDS = 60.0  # for an answer to be taken, from when the client is first seen not to keep up
_LAST_SECONDS = 1.0  # for the first request of a connection, when the server ends
_REFUSAL_SECONDS = 1.0  # for the client to read why it is refused, while what it still sends is thrown away


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with deadlines and a largest number of connections, which uvicorn does not have.

    uvicorn's own timer starts after an answer only and is stopped by any byte. Here, a connection without a request in
    hand is closed after a few seconds, no matter what arrives meanwhile, and a client that does not take its answer is
    cut. One connection too many takes the place of the one that has waited longest without a request; half of all may
    come from one address.

    Args:
        max_connections: largest number of connections.
        metrics: counts connections, and those that are cut.
        settings: uvicorn's.
    """

    def __init__(self, *, max_connections: int, metrics: Metrics, **settings: Any) -> None:
        super().__init__(**settings)
        self.max_connections, self.metrics = max_connections, metrics
        self._deadline: asyncio.TimerHandle | None = None
        self._since = 0.0  # when the connection began to wait for a request
        self._has_begun = False  # a request
        self._is_refused = self._is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of an idle one where there are too many, or refuse it."""
        super().connection_made(transport)
        self.metrics.connections.inc()
        same = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._address == self._address]
        for others, most in ((same, max(1, self.max_connections // 2)), (self.connections, self.max_connections)):
            if len(others) > most and not self._make_room(others):
                self.metrics.closed.labels("too_many").inc()
                self._answer(503, "too many connections; try again later")
                transport.close()
                return
        self._await_request()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _is_active(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self, others: Any) -> bool:
        idle = [one for one in others if one is not self and not one._is_active and not one.transport.is_closing()]
        if not idle:
            return False
        min(idle, key=lambda one: one._since)._cut("too_many")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        self.metrics.connections.dec()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; a client that was refused is not listened to."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._is_active:
            self.cycle.keep_alive = self.cycle.keep_alive and not self._is_ending
            if not self.flow.write_paused:
                self._stop()
        elif not self._has_begun and not self._is_ending:
            self._has_begun = True
            self._start(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        """Wait for the next request, or until the client has taken the answer."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's timer
        if self._is_refused:
            return
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self._start(_ANSWER_SECONDS)
        elif self._is_active:  # another request had arrived already
            self._stop()
        else:
            self._await_request()

    def pause_writing(self) -> None:
        """Give the client time to take its answer; how much it takes meanwhile does not matter."""
        super().pause_writing()
        if self._deadline is None:
            self._start(_ANSWER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a request that is no HTTP, or has too large headers."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, RemoteProtocolError) else 400
        reason = f"the request's headers have more than {MAX_HEAD} bytes" if status == 431 else msg
        self._refuse(status, reason if status == 431 else f"{reason} ({error})"[:200])

    def shutdown(self) -> None:
        """Close the connection as soon as there is no request in hand; the first one may still be on its way."""
        self._is_ending = True
        if self._is_active:
            self.cycle.keep_alive = False
        elif self.cycle is None and not self._is_refused:
            self._start(_LAST_SECONDS)
        else:
            self.transport.close()

    def _await_request(self) -> None:
        self._since, self._has_begun = self.loop.time(), False
        self._start(HEAD_SECONDS)

    def _start(self, seconds: float) -> None:
        self._stop()
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self._cut("slow_reader")
        elif self._is_active:  # the client has caught up meanwhile
            self._stop()
        elif self._has_begun and self.cycle is None:
            self.metrics.closed.labels("slow_headers").inc()
            self._refuse(408, f"the request's headers did not arrive within {HEAD_SECONDS:g} seconds")
        else:
            self._cut("idle")

    def _cut(self, reason: str) -> None:
        self.metrics.closed.labels(reason).inc()
        self.transport.abort()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer a client outside of any request, and end the connection once it can have read the answer."""
        log_request(self.metrics, client=self._address, status=status)
        if self._is_active and self.cycle.response_started:
            self.transport.abort()
            return
        self._is_refused = True
        self._answer(status, reason)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stop()
        self._deadline = self.loop.call_later(_REFUSAL_SECONDS, self.transport.abort)

    def _answer(self, status: int, reason: str) -> None:
        if self.cycle is not None:  # what the application answers no longer counts
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"detail": reason}).encode()
        retry = "retry-after: 1\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
