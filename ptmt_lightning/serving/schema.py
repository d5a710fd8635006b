"""The requests and answers of the HTTP server, as ``/docs`` and ``/openapi.json`` show them to users."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from ptmt_lightning.serving.limits import MAX_BODY, MAX_HEAD

MAX_TEXTS = 256  # in a request
MAX_CHARACTERS = 100_000  # in a text
MAX_EXPLAINED = 20  # labels of a text that are explained at a time

Threshold = Annotated[float, Field(ge=0, le=1)]


def _whole(value: object) -> object:
    """Return an integer for a number such as ``1.0``, which JSON does not tell from ``1``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class PredictRequest(BaseModel):
    """Texts to be labelled, and options that replace the model's own settings for this request."""

    model_config = ConfigDict(extra="forbid", strict=True, title="PredictRequest")

    texts: list[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(min_length=1, max_length=MAX_TEXTS)
    threshold: Threshold | list[Threshold] | None = Field(None, description="in place of the model's; or one a level")
    top_k: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_whole)] = Field(
        None, description="at most so many labels a level"
    )
    prune: bool | None = Field(None, description="drop labels whose parent was not predicted")


class Path(BaseModel):
    """One path of predicted labels, from the top level down, with the probability of each label."""

    path: list[str]
    probabilities: list[float]


class PredictResponse(BaseModel):
    """The predicted paths of each text, in the order of the texts; a text's most probable path comes first."""

    predictions: list[list[Path]]


class ExplainRequest(BaseModel):
    """A text whose labels are to be explained: those that are given, each as a path, or those that are predicted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    labels: list[Annotated[list[str], Field(min_length=1)]] | None = Field(None, min_length=1, max_length=MAX_EXPLAINED)


class Word(BaseModel):
    """A word of a text, the place of its first character, and by how much it raises the log odds of the label."""

    word: str
    start: int
    value: float


class ExplainedLabel(BaseModel):
    """A label as a path from the top level down, and the words of the text in their order."""

    path: list[str]
    probability: float
    words: list[Word]


class ExplainResponse(BaseModel):
    """The explained labels, from the top level down."""

    labels: list[ExplainedLabel]


class Taxonomy(BaseModel):
    """The taxonomy of the model's labels: its edges from parent to child, and the name of the root.

    ``labels`` has what paths call a node whose label others share; all others are called by their names.
    """

    root: str
    edges: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    labels: dict[str, str] = {}


class Limits(BaseModel):
    """What a request may hold at most."""

    texts: int
    characters_a_text: int
    bytes: int


class ModelInfo(BaseModel):
    """The model that is served: numbers of labels and thresholds of its levels, from the top level down.

    ``thresholds`` is null if the model predicts the most probable labels or path, without any; ``prune`` is what holds
    for requests that do not say so themselves. ``explains`` says whether there is ``/explain``.
    """

    name: str
    version: str
    levels: list[int]
    thresholds: list[float] | None
    prune: bool
    explains: bool
    limits: Limits


class ServerInfo(BaseModel):
    """The settings of the server: texts in a batch, requests that may wait, and seconds that one may wait."""

    batch_size: int
    max_pending: int
    timeout: float


class Info(BaseModel):
    """What is served, and how."""

    model: ModelInfo
    server: ServerInfo


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


def request_model(num_levels: int, *, single_label: bool) -> type[PredictRequest]:
    """Return the type of the requests to one model, whose description says which thresholds it takes.

    Args:
        num_levels: number of levels of the taxonomy, each of which may have a threshold of its own.
        single_label: the model predicts the most probable label of each level, so that it takes no threshold.
    """
    known = PredictRequest.model_json_schema()["properties"]["threshold"]
    one, several, none = known["anyOf"]
    kinds = [none] if single_label else [one, several | {"minItems": num_levels, "maxItems": num_levels}, none]
    description = "this model takes none" if single_label else known["description"]
    field = Field(None, description=description, json_schema_extra={"anyOf": kinds})
    # The lengths are shown only, so that the model itself says what it takes.
    return create_model(
        "PredictRequest", __base__=PredictRequest, __doc__=PredictRequest.__doc__,
        threshold=(Threshold | list[Threshold] | None, field),
    )  # fmt: skip


_ALWAYS = {
    400: "The request is no HTTP or no JSON, or is for a host that this server does not answer for.",
    408: "The request's headers did not arrive in time.",
    431: f"The request's headers have more than {MAX_HEAD} bytes.",
    503: "The server is busy, has too many connections, or is not ready.",
}
_OF_TEXTS = {
    408: "The request did not arrive in time.",
    413: f"The request has more than {MAX_BODY} bytes.",
    422: "The request is not as described.",
}


_OF_LABELS = {404: "A label is not one of the model's."}


def problems(*, texts: bool = False, labels: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the answers other than 200 of an end point, for its OpenAPI description.

    Args:
        texts: the end point takes texts.
        labels: it takes labels, too.
    """
    answers = _ALWAYS | (_OF_TEXTS if texts else {}) | (_OF_LABELS if labels else {})
    # FastAPI would give the problems of an end point that answers with plain text as plain text, too.
    as_json = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    form = {"model": Problem} if texts else as_json
    return {status: {"description": answers[status], **form} for status in sorted(answers)}
