"""The process that predicts: it reads batches of requests from a socket, and writes the answers.

A message is a line of JSON. To this process: batches, each a list of requests ``{"texts", "options"}``; an empty one
asks for a sign of life, by a prediction; with the option ``explain``, one text is explained instead. From it:
``{"ready": true}`` or ``{"error": "..."}``, then ``{"sign": true}`` after each forward pass and
``{"answers": [[status, bytes], ...]}``, which the bodies of the answers follow.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from multiprocessing import forkserver
from socket import socket
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from ptmt_lightning.inference import Classifier

PRELOADED = ["ptmt_lightning.inference.engines", "transformers.models.auto"]  # what takes seconds to import
_PROBE = "is anybody there"  # predicted to show that the model answers
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # of Linux's prctl


def main(server: socket, settings: dict[str, Any]) -> None:
    """Predict until the server closes the socket or dies.

    Args:
        server: connection with the server.
        settings: ``model``, ``device``, ``precision``, ``trust`` and ``batch_size``, as :func:`.server.serve` takes
            them.

    Raises:
        SystemExit: the model can't be opened.
    """
    from tqdm import tqdm

    from ptmt_lightning.inference import Classifier

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which would outlive a killed process
    _ignore_signals()
    _wake_when_server_ends()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(server.makefile("rb"), inbox), daemon=True).start()
    answers = server.makefile("wb")
    options = {name: settings[name] for name in ("device", "precision", "trust")}
    try:
        classifier = Classifier.from_pretrained(settings["model"], **options)
    except (ValueError, OSError) as error:
        _tell(answers, {"error": str(error)})
        raise SystemExit(1) from None
    _tell_of_scores(classifier, answers)
    _tell(answers, {"ready": True})
    while True:
        requests = inbox.get()
        if not requests:
            classifier.predict(_PROBE)
        found = answer(classifier, requests, settings["batch_size"])
        bodies = [json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() for _, body in found]
        sizes = [[status, len(body)] for (status, _), body in zip(found, bodies, strict=True)]
        _tell(answers, {"answers": sizes}, *bodies)


def answer(classifier: Classifier, requests: list[dict[str, Any]], batch_size: int) -> list[tuple[int, dict[str, Any]]]:
    """Return status and content of the answer to each request.

    Texts of requests with the same options are predicted together. Wrong options are answered with status 422, scores
    that can't be computed, such as for too little memory, with 503.

    Args:
        classifier: the model.
        requests: the ``texts`` and ``options`` of each request.
        batch_size: number of texts in a batch.
    """
    outcomes: list[tuple[int, dict[str, Any]]] = [(0, {})] * len(requests)
    alike: dict[str, list[int]] = {}  # rows of the requests with the same options
    for row, request in enumerate(requests):
        alike.setdefault(json.dumps(request["options"], sort_keys=True), []).append(row)
    for rows in alike.values():
        options = requests[rows[0]]["options"]
        if "explain" in options:
            for row in rows:
                outcomes[row] = _explained(classifier, requests[row]["texts"][0], options["explain"])
            continue
        status = 422
        try:
            classifier.predict(iter(()), **options)  # checks the options alone
            status = 503
            texts = (text for row in rows for text in requests[row]["texts"])
            predictions = classifier.predict(texts, batch_size=batch_size, **options)
            for row in rows:
                found = [next(predictions) for _ in requests[row]["texts"]]
                outcomes[row] = 200, {"predictions": [[path.to_json() for path in paths] for paths in found]}
        except ValueError as error:
            for row in rows:
                outcomes[row] = status, {"detail": shortened(str(error))}
    return outcomes


def _explained(classifier: Classifier, text: str, labels: list[list[str]] | None) -> tuple[int, dict[str, Any]]:
    from ptmt_lightning.inference.explain import Explainer  # needs the extra "explain"

    status = 404
    try:
        classifier.taxonomy.encode(labels or [])  # refuses labels that there are not
        status = 503
        found = Explainer(classifier).explain(text, labels)
    except ValueError as error:
        return status, {"detail": shortened(str(error))}
    return 200, {"labels": [label.to_json() for label in found]}


def shortened(reason: str) -> str:
    """Return a message, without its middle if it is long, as it may echo what the client sent."""
    return reason if len(reason) <= 500 else f"{reason[:200]} ... {reason[-250:]}"


def _tell_of_scores(classifier: Classifier, answers: BinaryIO) -> None:
    """Tell the server of each forward pass, which is a sign of life."""
    import torch

    score = classifier.score
    if isinstance(score, torch.nn.Module):  # remains itself, as explanations need its parts
        score.register_forward_hook(lambda *_: _tell(answers, {"sign": True}))
        return

    def score_and_tell(batch: Any) -> Any:
        found = score(batch)
        _tell(answers, {"sign": True})
        return found

    classifier.score = score_and_tell


def _tell(answers: BinaryIO, message: dict[str, Any], *bodies: bytes) -> None:
    answers.write(b"".join([json.dumps(message).encode(), b"\n", *bodies]))
    answers.flush()


def _read(source: BinaryIO, inbox: queue.SimpleQueue[Any]) -> None:
    """Read messages until the server closes the socket, or dies, and then end this process at once."""
    try:
        for line in source:
            inbox.put(json.loads(line))
    finally:
        os._exit(0)


def _ignore_signals() -> None:
    """Leave the signals that a whole group of processes gets to the server, which ends this process when it is done."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _wake_when_server_ends() -> None:
    """Let this process go on, should it be stopped, when the server dies, so that it finds the socket closed; on Linux.

    The process that this one is forked from ends with the server. If that one alone is killed, this one just goes on.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_NAME, b"ptmt-worker")  # as ps -o comm shows it
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
        # The parent ends when nobody holds this pipe any more; a worker that is stopped would keep it alive.
        if (alive := forkserver._forkserver._forkserver_alive_fd) is not None:  # type: ignore[attr-defined]
            os.close(alive)
