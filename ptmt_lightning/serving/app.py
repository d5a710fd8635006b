"""The end points of the HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ptmt_lightning import __version__
from ptmt_lightning.inference.model_folder import ModelFolder
from ptmt_lightning.serving import schema
from ptmt_lightning.serving.limits import MAX_BODY, HeadLimits, Limits, invalid_request
from ptmt_lightning.serving.metrics import Metrics
from ptmt_lightning.serving.predictor import Predictor, WorkerError
from ptmt_lightning.serving.request_log import RequestLog

_PAGE = Path(__file__).with_name("page.html")
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(
    folder: ModelFolder, predictor: Predictor, metrics: Metrics, lifespan: Lifespan, *, hosts: Collection[str] | None,
    max_pending: int, timeout: float,
) -> FastAPI:  # fmt: skip
    """Return the application of the server.

    Args:
        folder: the saved model.
        predictor: predicts for it.
        metrics: shown at ``/metrics``.
        lifespan: context in which the application answers.
        hosts: as for :class:`.HeadLimits`.
        max_pending: as for :class:`.Limits`.
        timeout: as for :class:`.Limits`.
    """
    info = _info(folder, predictor, max_pending, timeout)
    app = FastAPIOffline(  # FastAPI whose /docs loads nothing from the web
        title="ptmt_lightning", version=__version__, redoc_url=None, lifespan=lifespan,
        exception_handlers={RequestValidationError: invalid_request, WorkerError: _unavailable},
    )  # fmt: skip
    app.add_middleware(Limits, max_pending=max_pending, timeout=timeout)
    app.add_middleware(HeadLimits, hosts=hosts)
    app.add_middleware(RequestLog, metrics=metrics)  # the outermost
    text: dict[str, Any] = {"response_class": PlainTextResponse, "responses": schema.problems()}
    json: dict[str, Any] = {"responses": schema.problems()}
    model = schema.request_model(folder.taxonomy.num_levels, single_label=folder.rule.decision.single_label)

    page, taxonomy = _PAGE.read_bytes(), (folder.path / "taxonomy.json").read_bytes()

    @app.get("/", include_in_schema=False)
    async def try_it() -> Response:
        return Response(page, media_type="text/html")

    async def predict(request: Request, content: schema.PredictRequest) -> Response:
        """Predict the label paths of texts."""
        request.state.log["texts"] = len(content.texts)
        status, body = await predictor.predict(content.texts, content.model_dump(exclude={"texts"}))
        return Response(body, status, media_type="application/json")

    predict.__annotations__["content"] = model  # FastAPI reads the type from here
    of_texts = schema.problems(texts=True)
    app.add_api_route("/predict", predict, methods=["POST"], response_model=schema.PredictResponse, responses=of_texts)

    if info["model"]["explains"]:

        @app.post("/explain", response_model=schema.ExplainResponse, responses=schema.problems(texts=True, labels=True))
        async def explain(request: Request, content: schema.ExplainRequest) -> Response:
            """Return which words speak for and against labels of a text; as slow as hundreds of predictions."""
            request.state.log["texts"] = 1
            status, body = await predictor.predict([content.text], {"explain": content.labels})
            return Response(body, status, media_type="application/json")

    @app.get("/taxonomy", response_model=schema.Taxonomy, **json)
    async def edges() -> Response:
        """Return the taxonomy of the model's labels: its edges from parent to child, and the name of the root."""
        return Response(taxonomy, media_type="application/json")

    @app.get("/info", response_model=schema.Info, **json)
    async def information() -> JSONResponse:
        """Return what is served, and how."""
        return JSONResponse(info)

    @app.get("/live", **text)
    async def live() -> str:
        """Return ``ok``: this process answers."""
        return "ok"

    @app.get("/health", **text)
    async def health() -> Response:
        """Return ``ok`` if the model has predicted within the last seconds, or does so now; else status 503."""
        problem = await predictor.problem()
        return JSONResponse({"detail": problem}, 503) if problem else PlainTextResponse("ok")

    @app.get("/metrics", **text)
    async def counters() -> Response:
        """Return what the server counts, in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


def _info(folder: ModelFolder, predictor: Predictor, max_pending: int, timeout: float) -> dict[str, Any]:
    rule = folder.rule
    limits = {"texts": schema.MAX_TEXTS, "characters_a_text": schema.MAX_CHARACTERS, "bytes": MAX_BODY}
    model = {
        "name": "/".join(folder.path.resolve().parts[-2:]), "version": __version__,
        "levels": list(folder.taxonomy.level_sizes),
        "thresholds": rule.thresholds if rule.has_thresholds else None, "prune": rule.prune,
        "explains": not folder.is_exported and find_spec("captum") is not None, "limits": limits,
    }  # fmt: skip
    settings = {"batch_size": predictor.settings["batch_size"], "max_pending": max_pending, "timeout": timeout}
    return {"model": model, "server": settings}
