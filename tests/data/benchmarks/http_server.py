"""A host of files on this machine that can be told to misbehave, one request after the other."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


@dataclass(frozen=True)
class Answer:
    """How one request is answered; the default is what a good host does.

    Args:
        status: answer with this status and a short text instead of the file.
        stop_after: close the connection after so many bytes of the body.
        reset: ``stop_after`` ends with a reset instead of an orderly close.
        extra_length: so many bytes are announced that never come.
        content_type: header of that name.
        etag: ``strong``, ``weak`` or ``none``.
        last_modified: header of that name.
        ranges: whether the host knows ``Range``.
        if_range: whether the host heeds ``If-Range``; one that doesn't sends the range of whatever file it has.
        shift: a range begins so many bytes later than asked for.
        at_most: a range has no more bytes than this, as HTTP allows.
        announced: whether there is a ``Content-Length``.
        content: serve this instead of the file, from now on.
    """

    status: int | None = None
    stop_after: int | None = None
    reset: bool = False
    extra_length: int = 0
    content_type: str = "application/octet-stream"
    etag: str = "strong"
    last_modified: str | None = None
    ranges: bool = True
    if_range: bool = True
    shift: int = 0
    at_most: int | None = None
    announced: bool = True
    content: bytes | None = None


class Request(NamedTuple):
    """What a client asked for; None for a header that it did not send."""

    path: str
    range: str | None
    if_range: str | None
    user_agent: str | None


class Host(ThreadingHTTPServer):
    """Serves ``files``; ``script`` holds the answers to the next requests, ``otherwise`` is the one after them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.otherwise = Answer()
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str | None]:
        """The ``Range`` header of each request so far."""
        return [request.range for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        host, name = self.server, self.path.lstrip("/")
        headers = (self.headers[key] for key in ("Range", "If-Range", "User-Agent"))
        with host.lock:
            host.requests.append(Request(name, *headers))
            answer = host.script.pop(0) if host.script else host.otherwise
            if answer.content is not None:
                host.files[name] = answer.content
        if answer.status is not None or name not in host.files:
            self.send_error(answer.status or 404)
            return
        self._send(host.files[name], answer)

    def _send(self, content: bytes, answer: Answer) -> None:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        mark = {"strong": etag, "weak": f"W/{etag}", "none": None}[answer.etag]
        start = self._start(mark or answer.last_modified, answer.if_range) if answer.ranges else None
        if start is not None and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = 0 if start is None else start + answer.shift
        body = content[first:] if start is None else content[first:][: answer.at_most]
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", answer.content_type)
        if answer.announced:
            self.send_header("Content-Length", str(len(body) + answer.extra_length))
        if start is not None:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(content)}")
        if mark:
            self.send_header("ETag", mark)
        if answer.last_modified:
            self.send_header("Last-Modified", answer.last_modified)
        self.end_headers()
        self.wfile.write(body[: answer.stop_after])
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.flush()
            self.connection.close()

    def _start(self, mark: str | None, heed: bool) -> int | None:
        """Where the range begins that is to be sent, if one is."""
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        if wanted is None or (heed and condition is not None and condition != mark):
            return None
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        return int(found[1]) if found else None
