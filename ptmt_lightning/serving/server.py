"""``ptmt serve``: the end points, and the process that answers."""

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
_GRACE_SECONDS = 5  # for answers that are being made when the server ends


def serve(
    model: str, *, host: str, port: int, device: str | None, precision: Precision, batch_size: int, max_pending: int,
    timeout: float,
) -> None:  # fmt: skip
    """Answer requests until the process is told to end.

    Args:
        model, device, precision: of :meth:`~ptmt_lightning.inference.Classifier.from_pretrained`.
        host: ``"127.0.0.1"``, this machine alone, or ``"0.0.0.0"`` for everybody who can reach it.
        batch_size: texts at a time, of several requests where several wait.
        max_pending: requests that may wait for an answer; further ones get a 503.
        timeout: seconds that a request may wait, then it gets a 503.

    Raises:
        ValueError: a model, device or address that can't be used.
    """
    server = _make_server(
        model, device=device, precision=precision, batch_size=batch_size, max_pending=max_pending, timeout=timeout
    )
    server.uvicorn_graceful_timeout = _GRACE_SECONDS
    _end_all_on_sigterm()
    server.run(
        host=host, port=port, num_api_servers=1, log_level="info", access_log=False, generate_client_file=False,
        limit_concurrency=4 * max_pending,
    )  # fmt: skip


def _make_server(
    model: str, *, device: str | None, precision: Precision, batch_size: int, max_pending: int, timeout: float
) -> litserve.LitServer:
    """The end points ``/``, ``/predict``, ``/taxonomy``, ``/health``, ``/info``, ``/docs``, ``/openapi.json``."""
    check_range("batch_size", batch_size, 1, integer=True)
    check_range("max_pending", max_pending, 1, integer=True)
    if not timeout > 0:
        raise ValueError(f"timeout={timeout}: expected seconds above 0")
    opened = ModelFolder.open(model)
    opened.device(device, precision)
    server = litserve.LitServer(
        TaxonomyAPI(model, device=device, precision=precision, batch_size=batch_size),
        accelerator="cpu",  # which is LitServe's business only where it chooses the device
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
        """The labels, level by level, and which is above which."""
        return FileResponse(opened.path / "taxonomy.json")

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/taxonomy", taxonomy)
    return server


def _end_all_on_sigterm() -> None:
    """As Ctrl-C does: this process ends those that it started, which have this handler, too."""
    server = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == server:
            raise KeyboardInterrupt
        raise SystemExit

    signal.signal(signal.SIGTERM, handle)
