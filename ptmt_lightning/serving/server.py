"""The server behind ``ptmt serve``: its end points, and how it is run and stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import litserve
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse

from ptmt_lightning import __version__
from ptmt_lightning.inference.model_folder import ModelFolder, Precision
from ptmt_lightning.serving.api import MAX_CHARACTERS, MAX_TEXTS, TaxonomyAPI
from ptmt_lightning.serving.limits import MAX_BODY, Limits, invalid_request
from ptmt_lightning.utils.checks import check_range

_PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
}
_GRACE_SECONDS = 5  # time to finish answers when the server is told to end


def serve(
    model: str, *, host: str, port: int, device: str | None, precision: Precision, batch_size: int, max_pending: int,
    timeout: float, trust: bool = False,
) -> None:  # fmt: skip
    """Answer HTTP requests until the process is told to end.

    Args:
        model: folder of a trained model, or its name on a hub.
        host: ``"127.0.0.1"`` for clients on this machine only, or ``"0.0.0.0"`` for all that can reach it.
        port: number of the port to listen on.
        device: device to run on; None for a GPU where there is one.
        precision: number format of weights and computation.
        batch_size: number of texts in a batch, which may come from several requests.
        max_pending: largest number of requests that may wait for an answer; further ones are answered with status 503.
        trust: open ``model.pt2``, which can run code.
        timeout: seconds that a request may wait for its answer, before status 503.

    Raises:
        ValueError: the model, device or address can't be used, or a number is out of range.
    """
    server = _make_server(
        model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        max_pending=max_pending,
        timeout=timeout,
        trust=trust,
    )
    server.uvicorn_graceful_timeout = _GRACE_SECONDS
    _end_all_on_sigterm()
    server.run(
        host=host, port=port, num_api_servers=1, log_level="info", access_log=False, generate_client_file=False,
        limit_concurrency=4 * max_pending,
    )  # fmt: skip


def _make_server(
    model: str,
    *,
    device: str | None,
    precision: Precision,
    batch_size: int,
    max_pending: int,
    timeout: float,
    trust: bool = False,
) -> litserve.LitServer:
    """Return a server for ``/``, ``/predict``, ``/taxonomy``, ``/health``, ``/info``, ``/docs``, ``/openapi.json``.

    Raises:
        ValueError: the model or device can't be used, or a number is out of range.
    """
    check_range("batch_size", batch_size, 1, integer=True)
    check_range("max_pending", max_pending, 1, integer=True)
    check_range("timeout", timeout, 0, low_open=True)
    opened = ModelFolder.open(model)
    opened.check_trust(trust=trust)
    opened.device(device, precision)
    server = litserve.LitServer(
        TaxonomyAPI(model, device=device, precision=precision, batch_size=batch_size, trust=trust),
        accelerator="cpu",  # keeps LitServe from looking for GPUs; the worker chooses its device itself
        timeout=timeout,
        restart_workers=True,
        middlewares=[(Limits, {"max_pending": max_pending, "timeout": timeout})],
        model_metadata={
            "name": "/".join(opened.path.resolve().parts[-2:]),
            "version": __version__,
            "levels": list(opened.taxonomy.level_sizes),
            "thresholds": opened.settings["thresholds"],
            "limits": {"texts": MAX_TEXTS, "characters_a_text": MAX_CHARACTERS, "bytes": MAX_BODY},
        },
    )
    app = server.app
    app.title, app.version = "ptmt_lightning", __version__
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != "/"]

    async def page() -> FileResponse:
        return FileResponse(_PAGE, headers=_PAGE_HEADERS)

    async def taxonomy() -> FileResponse:
        """Return the taxonomy of the model's labels: its edges from parent to child, and the name of the root."""
        return FileResponse(opened.path / "taxonomy.json")

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/taxonomy", taxonomy)
    return server


def _end_all_on_sigterm() -> None:
    """Make SIGTERM end the server as Ctrl-C does: this process ends its children, which inherit the handler."""
    server = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == server:
            raise KeyboardInterrupt
        raise SystemExit

    signal.signal(signal.SIGTERM, handle)
