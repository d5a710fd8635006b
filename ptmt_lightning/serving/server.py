"""The server behind ``ptmt serve``: how it is run and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from ptmt_lightning.inference.model_folder import ModelFolder, Precision
from ptmt_lightning.serving.app import make_app
from ptmt_lightning.serving.limits import MAX_HEAD
from ptmt_lightning.serving.metrics import Metrics
from ptmt_lightning.serving.predictor import Predictor
from ptmt_lightning.serving.protocol import BoundedProtocol
from ptmt_lightning.utils.checks import check_range

_log = logging.getLogger(__name__)

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def serve(
    model: str, *, host: str, port: int, device: str | None, precision: Precision, batch_size: int, max_pending: int,
    timeout: float, max_connections: int = 512, allowed_hosts: Collection[str] = (), trust: bool = False,
) -> None:  # fmt: skip
    """Answer HTTP requests until the process is told to end (SIGTERM, SIGINT, SIGHUP); requests in hand are finished.

    Args:
        model: folder of a trained model, or its name on a hub.
        host: ``"127.0.0.1"`` for clients on this machine only, or ``"0.0.0.0"`` for all that can reach it.
        port: number of the port to listen on; 0 for any that is free.
        device: device to run on; None for a GPU where there is one.
        precision: number format of weights and computation.
        batch_size: number of texts in a batch, which may come from several requests.
        max_pending: largest number of requests that may wait for an answer; further ones are answered with status 503.
        timeout: seconds that a request may wait for its answer, before status 503; a process that predicts and gives no
            sign for so long is replaced.
        max_connections: largest number of connections, half of which may come from one address.
        allowed_hosts: names that clients may know this server by, beside ``host`` and those of the machine itself; none
            if that is up to ``host``: then all names are allowed where it stands for all addresses.
        trust: open ``model.pt2``, which can run code.

    Raises:
        ValueError: the model, device or address can't be used, a number is out of range, or the process that predicts
            can't be started.
    """
    check_range("batch_size", batch_size, 1, integer=True)
    check_range("max_pending", max_pending, 1, integer=True)
    check_range("max_connections", max_connections, 2, integer=True)
    check_range("timeout", timeout, 0, low_open=True)
    check_range("port", port, 0, 65535, integer=True)
    folder = ModelFolder.open(model)
    folder.check_trust(trust=trust)
    metrics = Metrics()
    settings = {
        "model": str(model), "device": device, "precision": precision, "batch_size": batch_size, "trust": trust,
    }  # fmt: skip
    with _listening(host, port) as listener:
        asyncio.run(
            _run(
                folder, Predictor(settings, silence=timeout, metrics=metrics), metrics, listener,
                hosts=_hosts(host, allowed_hosts), max_pending=max_pending, timeout=timeout,
                max_connections=max_connections,
            )
        )  # fmt: skip


async def _run(
    folder: ModelFolder, predictor: Predictor, metrics: Metrics, listener: socket.socket, *, max_connections: int,
    **limits: Any,
) -> None:  # fmt: skip
    """Answer until told to end, or until there is nothing to predict with.

    Raises:
        ValueError: the process that predicts can't be started.
    """
    failures: list[BaseException] = []

    @contextlib.asynccontextmanager
    async def predicting(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(predictor.run())
        task.add_done_callback(end)
        yield
        task.remove_done_callback(end)
        task.cancel()
        await asyncio.wait({task})

    def end(task: asyncio.Task[None]) -> None:
        if error := task.exception():
            failures.append(error)
        server.should_exit = True

    app = make_app(folder, predictor, metrics, predicting, **limits)
    protocol: Any = partial(BoundedProtocol, max_connections=max_connections, metrics=metrics)
    server = _Server(
        uvicorn.Config(
            app, http=protocol, ws="none", loop="asyncio", lifespan="on", log_config=None, log_level="error",
            access_log=False, server_header=False, h11_max_incomplete_event_size=MAX_HEAD,
            timeout_keep_alive=3600,  # BoundedProtocol has its own
        )
    )  # fmt: skip
    where, at = listener.getsockname()[:2]
    _log.info("listening on http://%s:%d; %s", f"[{where}]" if ":" in where else where, at, _for_whom(limits["hosts"]))
    await server.serve(sockets=[listener])
    if failures:
        raise failures[0]


class _Server(uvicorn.Server):
    """uvicorn's server, which ends with status 0 when it is told to, and on SIGHUP, too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on the first signal when all requests in hand are answered, on the second at once."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
        numbers = [getattr(signal, name) for name in names]
        # One that is ignored stays so: nohup ignores SIGHUP.
        numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, *_: object) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Give a socket that is bound to an address, and close it in the end.

    Raises:
        ValueError: the address can't be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host={host!r}: no address of this machine ({error}); try 127.0.0.1 or 0.0.0.0") from error
    with socket.socket(family, kind, protocol) as listener:
        if sys.platform != "win32":  # where it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ValueError(f"host={host!r}, port={port}: can't be used ({error.strerror}); try others") from error
        yield listener


def _hosts(host: str, allowed: Collection[str]) -> set[str] | None:
    """Return the hosts that clients may ask for; None for any."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None and address.is_unspecified and not allowed:
        return None
    bracketed = f"[{host}]" if ":" in host else host
    return {*_LOOPBACK, bracketed, *allowed}


def _for_whom(hosts: Collection[str] | None) -> str:
    return "for any host" if hosts is None else f"for the hosts {', '.join(sorted(hosts))}"
