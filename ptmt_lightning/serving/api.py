"""What is asked for and answered over HTTP, and the process that predicts.

LitServe reads the types of a method off its signature, so they are no strings here.
"""

import queue
import signal
import time
from typing import Annotated, Any, cast

import litserve
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from litserve.loops.simple_loops import BatchedLoop
from litserve.utils import LitAPIStatus, LoopResponseType
from pydantic import BaseModel, ConfigDict, Field

from ptmt_lightning.inference import Classifier, Prediction
from ptmt_lightning.inference.model_folder import Precision
from ptmt_lightning.serving.limits import BUSY

MAX_TEXTS = 256  # a request
MAX_CHARACTERS = 100_000  # a text

Threshold = Annotated[float, Field(ge=0, le=1)]


class PredictRequest(BaseModel):
    """Texts, and what :meth:`~ptmt_lightning.inference.Classifier.predict` takes beside them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: list[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(min_length=1, max_length=MAX_TEXTS)
    threshold: Threshold | list[Threshold] | None = Field(None, description="in place of the model's; or one a level")
    top_k: int | None = Field(None, ge=1, description="at most so many labels a level")
    prune: bool | None = Field(None, description="drop labels whose parent was not predicted")


class Path(BaseModel):
    """Labels from the top down, and the probability of each."""

    path: list[str]
    probabilities: list[float]


class PredictResponse(BaseModel):
    """The paths of each text, most probable first."""

    predictions: list[list[Path]]


class WaitingRequests(BatchedLoop):  # type: ignore[misc]
    """Takes what is waiting, up to a batch of texts: a lone request goes at once, a crowd goes together.

    LitServe's own loop asks a thousand times a second whether somebody is there, and counts requests, not texts.
    """

    def get_batch_requests(self, lit_api: Any, request_queue: Any, transport: Any) -> tuple[list[Any], list[Any]]:
        """Requests as ``(queue, id, request)``; nothing to time out beside them, that is answered here."""
        taken: list[Any] = []
        texts = 0
        while texts < lit_api.max_batch_size:
            try:
                answers, uid, arrived, request = request_queue.get(block=not taken, timeout=1.0)
            except queue.Empty:
                break
            if uid is None:  # the server ends
                raise KeyboardInterrupt
            self.put_response(transport, answers, uid, (), LitAPIStatus.START, LoopResponseType.REGULAR)
            if lit_api.request_timeout and time.monotonic() - arrived > lit_api.request_timeout:
                late = HTTPException(503, BUSY)
                self.put_response(transport, answers, uid, late, LitAPIStatus.ERROR, LoopResponseType.REGULAR)
                continue
            taken.append((answers, uid, request))
            texts += len(request.texts)
        return taken, []


class TaxonomyAPI(litserve.LitAPI):  # type: ignore[misc]
    """Predicts for the requests of a batch together.

    Args:
        model, device, precision: of :meth:`~ptmt_lightning.inference.Classifier.from_pretrained`.
        batch_size: texts at a time.
    """

    def __init__(self, model: str, *, device: str | None, precision: Precision, batch_size: int) -> None:
        super().__init__(max_batch_size=batch_size, loop=WaitingRequests())
        self.model, self.model_device, self.precision = model, device, precision

    def setup(self, device: Any) -> None:
        """Once, in the process that predicts."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
        self.classifier = Classifier.from_pretrained(self.model, device=self.model_device, precision=self.precision)

    def decode_request(self, request: PredictRequest) -> PredictRequest:
        """Checked by its type, before it comes here."""
        return request

    def batch(self, inputs: list[PredictRequest]) -> list[PredictRequest]:
        """As they are."""
        return inputs

    def predict(self, requests: list[PredictRequest]) -> list[list[Prediction] | ValueError]:
        """The predictions of each request, or what is wrong with its options."""
        outcomes: list[list[Prediction] | ValueError] = [[] for _ in requests]
        alike: dict[str, list[int]] = {}  # by options
        for row, request in enumerate(requests):
            alike.setdefault(request.model_dump_json(exclude={"texts"}), []).append(row)
        for rows in alike.values():
            options = requests[rows[0]].model_dump(exclude={"texts"})
            try:
                self.classifier.predict([], **options)
            except ValueError as error:
                outcomes = [error if row in rows else outcome for row, outcome in enumerate(outcomes)]
                continue
            texts = (text for row in rows for text in requests[row].texts)
            predictions = self.classifier.predict(texts, batch_size=self.max_batch_size, **options)
            for row in rows:
                outcomes[row] = [next(predictions) for _ in requests[row].texts]
        return outcomes

    def encode_response(self, output: list[Prediction] | ValueError) -> PredictResponse:
        """The answer, ready to be sent; the annotation is for OpenAPI."""
        if isinstance(output, ValueError):
            answer = JSONResponse({"detail": str(output)}, status_code=422)
        else:
            answer = JSONResponse({"predictions": [[path.to_json() for path in prediction] for prediction in output]})
        return cast(PredictResponse, answer)
