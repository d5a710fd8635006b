"""One line in the log, one identifier and a few headers for each request."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptmt_lightning.serving.metrics import Metrics

_log = logging.getLogger(__name__)

CLIENT_GONE = 499  # in place of a status: the client hung up before it had an answer
_PASSED_ON = re.compile(r"[\w.-]{1,128}", re.ASCII)  # identifiers that are taken over from a client
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def log_request(metrics: Metrics, *, path: str = "none", seconds: float = 0.0, **fields: Any) -> None:
    """Count a request and write its line, in JSON, so that nothing a client sends can look like a line of its own.

    Args:
        metrics: counts requests.
        path: path of the end point, or ``none``.
        seconds: time until the answer.
        fields: what else the line says, ``status`` among it.
    """
    metrics.requests.labels(path, fields["status"]).inc()
    metrics.seconds.labels(path).observe(seconds)
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    _log.info(json.dumps({"time": now} | fields | {"seconds": round(seconds, 6)}))


class RequestLog:
    """ASGI middleware that gives each request an identifier, and writes a line about its answer.

    The identifier is the client's ``X-Request-ID`` if that has at most 128 letters, digits, ``.``, ``_`` and ``-``,
    else a new one; it is in the answer's ``X-Request-ID``, too. All answers forbid browsers to load anything from
    elsewhere.

    Args:
        app: the application.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and write its line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("X-Request-ID", "")
        uid = wanted if _PASSED_ON.fullmatch(wanted) else uuid.uuid4().hex
        status = CLIENT_GONE
        began = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS | {"X-Request-ID": uid})
            await send(message)

        known: dict[str, Any] = {}  # what end points add to the line
        scope.setdefault("state", {})["log"] = known
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            log_request(
                self.metrics, path=getattr(scope.get("route"), "path", "none"), seconds=time.perf_counter() - began,
                id=uid, client=(scope["client"] or ("",))[0], method=scope["method"], target=scope["path"][:200],
                status=status, **known,
            )  # fmt: skip
