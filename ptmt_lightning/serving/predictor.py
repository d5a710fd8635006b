"""Requests that wait to be predicted, and the process that predicts them: started, watched, and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import signal
import socket
from collections import deque
from collections.abc import Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

from ptmt_lightning.serving import worker
from ptmt_lightning.serving.metrics import Metrics

_log = logging.getLogger(__name__)

_FRESH_SECONDS = 2.0  # a prediction this young shows that the model answers
_PROBE_SECONDS = 3.0  # time for a prediction that is made to show it
_STARTS = 3  # starts one after the other that may fail, once the model has been opened before
_ATTEMPTS = 2  # processes that may die of a request
_DIED = "the process that predicts died of this request; send fewer or shorter texts"


class WorkerError(Exception):
    """The process that predicts has died, or does not answer."""


class Answer(NamedTuple):
    """Status and JSON body of the answer to a request."""

    status: int
    body: bytes


class _Waiting:
    """A request that waits for its answer."""

    def __init__(self, texts: Sequence[str], options: dict[str, Any]) -> None:
        self.texts, self.options = texts, options
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.attempts = 0


class Predictor:
    """Predicts the texts of several requests together, in a process of its own.

    All waiting requests are taken together, up to a batch of texts; none is kept waiting for further ones. When the
    process dies, another one is started and gets what the first had in hand.

    Args:
        settings: ``model``, ``device``, ``precision``, ``trust`` and ``batch_size``, as :func:`.server.serve` takes
            them.
        silence: seconds without a sign after which a process that has work is ended and replaced.
        metrics: counts batches, texts and restarts.
    """

    def __init__(self, settings: dict[str, Any], *, silence: float, metrics: Metrics) -> None:
        self.settings, self.silence, self.metrics = settings, silence, metrics
        self._queue: deque[_Waiting] = deque()
        metrics.waiting.set_function(lambda: len(self._queue))
        self._wake = asyncio.Event()
        self._sign = asyncio.Event()  # replaced at each sign of life
        self._last_sign = float("-inf")
        self._is_ready = self._probe_wanted = self._has_ended = False

    async def predict(self, texts: Sequence[str], options: dict[str, Any]) -> Answer:
        """Return the answer to a request; a caller that is cancelled while it waits takes the request back.

        Args:
            texts: the texts.
            options: ``threshold``, ``top_k`` and ``prune``, as :meth:`.Classifier.predict` takes them; or ``explain``
                with the labels that :meth:`.Explainer.explain` takes, for one text.

        Raises:
            WorkerError: the process that predicts died of the request, or can't be started again.
        """
        if self._has_ended:
            raise WorkerError("the server is ending")
        request = _Waiting(texts, options)
        self._queue.append(request)
        self._wake.set()
        return await request.answer

    async def problem(self) -> str | None:
        """Return why no text can be predicted right now; None after a prediction within the last few seconds."""
        if not self._is_ready:
            return "the model is being loaded"
        if asyncio.get_running_loop().time() - self._last_sign > _FRESH_SECONDS:
            self._probe_wanted = True
            self._wake.set()
            try:
                await asyncio.wait_for(self._sign.wait(), _PROBE_SECONDS)
            except TimeoutError:
                return f"no prediction within {_PROBE_SECONDS:g} seconds"
        return None

    async def run(self) -> None:
        """Start the process, send it batches, and replace it when it dies, until this task is cancelled.

        Raises:
            ValueError: the model can't be opened, or the process can't be started.
        """
        failures, was_ready = 0, False
        try:
            while True:
                try:
                    async with _Worker(self.settings) as process:
                        was_ready, failures = True, 0
                        await self._feed(process)
                except WorkerError as error:
                    failures += not self._is_ready
                    if failures >= (_STARTS if was_ready else 1):
                        raise ValueError(f"the process that predicts can't be started: {error}") from error
                    _log.warning("%s; it is started again", error)
                    self.metrics.restarts.inc()
                finally:
                    self._is_ready = False
        finally:
            self._has_ended = True
            for request in self._queue:
                if not request.answer.done():
                    request.answer.set_exception(WorkerError("the server is ending"))
            self._queue.clear()

    async def _feed(self, process: _Worker) -> None:
        """Send batches to the process until it dies."""
        self._is_ready, self._last_sign = True, float("-inf")
        death = asyncio.ensure_future(process.death())
        try:
            while True:
                woken = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({death, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if death.done():
                    raise WorkerError(death.result())
                self._wake.clear()
                await self._empty_queue(process)
        finally:
            death.cancel()

    async def _empty_queue(self, process: _Worker) -> None:
        while (batch := self._take()) or self._probe_wanted:
            self._probe_wanted = False
            try:
                answers = await self._exchange(process, batch)
            except WorkerError:
                self._put_back(batch)
                raise
            for request, answer in zip(batch, answers, strict=True):
                if not request.answer.done():
                    request.answer.set_result(answer)
            if batch:
                texts = sum(len(request.texts) for request in batch)
                self.metrics.texts.inc(texts)
                self.metrics.batch_texts.observe(texts)

    def _take(self) -> list[_Waiting]:
        """Take the waiting requests, up to a batch of texts; one that a process died of is taken alone."""
        batch: list[_Waiting] = []
        texts = 0
        while self._queue and texts < self.settings["batch_size"]:
            if batch and self._queue[0].attempts:
                break
            request = self._queue.popleft()
            if request.answer.done():  # its client has gone, or it has waited too long
                continue
            batch.append(request)
            texts += len(request.texts)
            if request.attempts:
                break
        return batch

    def _put_back(self, batch: list[_Waiting]) -> None:
        for request in reversed(batch):
            request.attempts += 1
            if request.answer.done():
                continue
            if request.attempts < _ATTEMPTS:
                self._queue.appendleft(request)
            else:
                request.answer.set_exception(WorkerError(_DIED))
        if self._queue:
            self._wake.set()

    async def _exchange(self, process: _Worker, batch: list[_Waiting]) -> list[Answer]:
        content = [{"texts": request.texts, "options": request.options} for request in batch]
        try:
            async with asyncio.timeout(self.silence) as limit:
                await process.send(content)
                while True:
                    message, bodies = await process.receive()
                    limit.reschedule(asyncio.get_running_loop().time() + self.silence)
                    self._signal()
                    if "answers" in message:
                        sizes = message["answers"]
                        return [Answer(status, body) for (status, _), body in zip(sizes, bodies, strict=True)]
        except TimeoutError:
            raise WorkerError(f"the process that predicts gave no sign for {self.silence:g} seconds") from None

    def _signal(self) -> None:
        self._last_sign = asyncio.get_running_loop().time()
        self._sign.set()
        self._sign = asyncio.Event()


class _Worker:
    """The process of :mod:`.worker`, while this context lasts; entering it waits until the model is loaded.

    It is forked from a process that has imported the libraries, so that a new one is there in a moment; where there are
    no forks, it imports them itself.

    Raises:
        ValueError: the model can't be opened.
        WorkerError: the process has died.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    async def __aenter__(self) -> _Worker:
        ours, theirs = socket.socketpair()
        self.process = _context().Process(target=worker.main, args=(theirs, self.settings), daemon=True)
        self.reader, self.writer = await asyncio.open_connection(sock=ours, limit=2**24)
        with theirs:
            try:
                await asyncio.to_thread(_start, self.process)
            except (OSError, EOFError) as error:
                self.writer.close()
                raise WorkerError(f"the process that predicts could not be started ({error!r})") from error
        self._messages: asyncio.Queue[tuple[Any, list[bytes]] | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        async with contextlib.AsyncExitStack() as unless_ready:
            unless_ready.push_async_callback(self.__aexit__)
            message, _ = await self.receive()
            if "error" in message:
                raise ValueError(message["error"])
            unless_ready.pop_all()
        _log.info("the process that predicts is ready (process %d)", self.process.pid)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        self.writer.close()
        self.process.kill()
        await asyncio.to_thread(self.process.join)

    async def send(self, message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it has died, which reading tells
            await self.writer.drain()

    async def receive(self) -> tuple[Any, list[bytes]]:
        """Return the next message, and the bodies that follow it."""
        message = await self._messages.get()
        if message is None:
            raise WorkerError(await self.death())
        return message

    async def death(self) -> str:
        """Wait until the process has died, and return how."""
        await asyncio.wait({self._reading})
        await asyncio.to_thread(self.process.join, 1)
        return f"the process that predicts died (exit code {self.process.exitcode})"

    async def _read(self) -> None:
        try:
            while line := await self.reader.readline():
                message = json.loads(line)
                sizes = message.get("answers", [])
                self._messages.put_nowait((message, [await self.reader.readexactly(size) for _, size in sizes]))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):  # it died in the middle of a message
            pass
        finally:
            self._messages.put_nowait(None)


def _context() -> Any:
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    context.set_forkserver_preload(worker.PRELOADED)
    return context


def _start(process: Any) -> None:
    """Start a process; signals of the whole group do not reach it, nor the one that it is forked from."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, where nothing is forked
        process.start()
        return
    resource_tracker.ensure_running()  # before, as it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
