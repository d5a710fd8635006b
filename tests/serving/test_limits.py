"""What a server refuses, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import Message

from ptmt_lightning.serving import limits
from ptmt_lightning.serving.limits import MAX_BODY, Limits


class Application:
    """Keeps each request until it is told to answer."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


async def post(app: Any, parts: Iterable[bytes], *, ends: bool = True) -> tuple[int, bytes]:
    """Status and body of the answer."""
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if ends:
        messages[-1]["more_body"] = False
    sent: list[Any] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "headers": [], "path": "/predict"}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_body_in_parts_arrives_whole() -> None:
    async def check() -> None:
        app = Application()
        app.go_on.set()
        assert await post(Limits(app, max_pending=1, timeout=5), [b"ab", b"", b"c"]) == (200, b"done")
        assert app.bodies == [b"abc"]

    asyncio.run(check())


def test_a_huge_body_is_refused_before_it_is_read() -> None:
    async def check() -> None:
        app = Application()
        app.go_on.set()
        limited = Limits(app, max_pending=1, timeout=5)
        assert (await post(limited, [b"x" * MAX_BODY]))[0] == 200
        status, body = await post(limited, [b"x" * MAX_BODY, b"x"], ends=False)
        assert (status, body) == (413, b'{"detail":"the request has more than 1048576 bytes; split it"}')
        assert len(app.bodies) == 1

    asyncio.run(check())


def test_a_slow_client_is_sent_away_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BODY_SECONDS", 0.05)

    async def check() -> None:
        app = Application()
        app.go_on.set()
        limited = Limits(app, max_pending=1, timeout=5)
        slow = asyncio.create_task(post(limited, [b"a"], ends=False))
        await asyncio.sleep(0.01)
        assert (await post(limited, [b"b"]))[0] == 200
        assert await slow == (408, b'{"detail":"the request did not arrive within 0.05 seconds"}')
        assert app.bodies == [b"b"]

    asyncio.run(check())


def test_a_request_too_many_gets_a_503_and_the_next_is_answered() -> None:
    async def check() -> None:
        app = Application()
        limited = Limits(app, max_pending=2, timeout=5)
        waiting = [asyncio.create_task(post(limited, [b"a"])) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert await post(limited, [b"b"]) == (503, b'{"detail":"the server is busy; try again later"}')
        app.go_on.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
        assert (await post(limited, [b"c"]))[0] == 200

    asyncio.run(check())


def test_a_late_answer_is_a_503_and_goes_nowhere() -> None:
    async def check() -> None:
        app = Application()
        limited = Limits(app, max_pending=1, timeout=0.05)
        assert (await post(limited, [b"a"]))[0] == 503
        assert limited.pending == 0
        app.go_on.set()
        assert await post(limited, [b"b"]) == (200, b"done")
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(check())


def test_a_request_that_fails_leaves_its_place() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError

    async def check() -> None:
        limited = Limits(fail, max_pending=1, timeout=5)
        for _ in range(3):
            with pytest.raises(KeyError):
                await post(limited, [b"a"])
        assert limited.pending == 0

    asyncio.run(check())
