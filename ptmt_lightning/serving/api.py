"""The requests and answers of the HTTP server, and the process that predicts.

LitServe reads the types in a method's signature and can't read strings, so this module must not import ``annotations``
from ``__future__``. The docstrings of requests and answers are shown to users, in ``/docs``.
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

MAX_TEXTS = 256  # in a request
MAX_CHARACTERS = 100_000  # in a text

Threshold = Annotated[float, Field(ge=0, le=1)]


class PredictRequest(BaseModel):
    """Texts to be labelled, and options that replace the model's own settings for this request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: list[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(min_length=1, max_length=MAX_TEXTS)
    threshold: Threshold | list[Threshold] | None = Field(None, description="in place of the model's; or one a level")
    top_k: int | None = Field(None, ge=1, description="at most so many labels a level")
    prune: bool | None = Field(None, description="drop labels whose parent was not predicted")


class Path(BaseModel):
    """One path of predicted labels, from the top level down, with the probability of each label."""

    path: list[str]
    probabilities: list[float]


class PredictResponse(BaseModel):
    """The predicted paths of each text, in the order of the texts; a text's most probable path comes first."""

    predictions: list[list[Path]]


class WaitingRequests(BatchedLoop):  # type: ignore[misc]
    """A loop of LitServe that takes all waiting requests together, up to a batch of texts, and awaits no further ones.

    LitServe's own loop looks for requests a thousand times a second, and limits a batch by requests instead of texts.
    """

    def get_batch_requests(self, lit_api: Any, request_queue: Any, transport: Any) -> tuple[list[Any], list[Any]]:
        """Return the waiting requests as ``(queue, id, request)``; waits for the first one for up to a second.

        Requests that have waited too long are answered here, with status 503, so the second list, of those that
        LitServe would have to answer, is empty.

        Args:
            lit_api: the API, which gives the size of a batch and the longest time to wait.
            request_queue: LitServe's queue of requests.
            transport: LitServe's way to send answers.

        Raises:
            KeyboardInterrupt: the server is shutting down.
        """
        taken: list[Any] = []
        texts = 0
        while texts < lit_api.max_batch_size:
            try:
                answers, uid, arrived, request = request_queue.get(block=not taken, timeout=1.0)
            except queue.Empty:
                break
            if uid is None:  # the server is shutting down
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
    """The worker of the server, which predicts the texts of several requests together.

    Args:
        model: folder of a trained model, or its name on a hub.
        device: device to run on; None for a GPU where there is one.
        precision: number format of weights and computation.
        batch_size: number of texts in a batch.
    """

    def __init__(self, model: str, *, device: str | None, precision: Precision, batch_size: int, trust: bool) -> None:
        super().__init__(max_batch_size=batch_size, loop=WaitingRequests())
        self.model, self.model_device, self.precision, self.trust = model, device, precision, trust

    def setup(self, device: Any) -> None:
        """Load the model; LitServe calls this once, in the process that predicts.

        Args:
            device: LitServe's choice of a device, which is not used.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
        self.classifier = Classifier.from_pretrained(
            self.model, device=self.model_device, precision=self.precision, trust=self.trust
        )

    def decode_request(self, request: PredictRequest) -> PredictRequest:
        """Return the request unchanged, as FastAPI has checked it by the type in this signature."""
        return request

    def batch(self, inputs: list[PredictRequest]) -> list[PredictRequest]:
        """Return the requests unchanged, as :meth:`predict` takes a list of them."""
        return inputs

    def predict(self, requests: list[PredictRequest]) -> list[list[Prediction] | ValueError]:
        """Return the predictions for each request, or what is wrong with its options."""
        outcomes: list[list[Prediction] | ValueError] = [[] for _ in requests]
        alike: dict[str, list[int]] = {}  # rows of the requests with the same options
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
        """Return the answer to a request: its predictions, or status 422 and what is wrong with its options.

        The answer is a finished response; the annotated type is what OpenAPI shows.
        """
        if isinstance(output, ValueError):
            answer = JSONResponse({"detail": str(output)}, status_code=422)
        else:
            answer = JSONResponse({"predictions": [[path.to_json() for path in prediction] for prediction in output]})
        return cast(PredictResponse, answer)
