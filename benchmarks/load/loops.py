"""Closed and open loops of requests."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

CLIENTS = 32

Ask = Callable[[aiohttp.ClientSession, int], Awaitable[bool]]


@dataclass
class Loop:
    """What came of a loop.

    Attributes:
        waited: seconds of each answer.
        failed: requests without one.
    """

    waited: list[float]
    failed: int
    seconds: float

    @property
    def told(self) -> dict[str, float]:
        """Answers a second, and milliseconds of waiting."""
        at = np.percentile(1000 * np.array(self.waited or [np.nan]), (50, 95, 99))
        names = ("p50_ms", "p95_ms", "p99_ms")
        return {"a_second": len(self.waited) / self.seconds, "failed": self.failed, **dict(zip(names, at, strict=True))}

    @property
    def longest(self) -> float:
        """Of waiting, milliseconds."""
        return 1000 * max(self.waited, default=float("nan"))


async def _one(ask: Ask, session: aiohttp.ClientSession, number: int, loop: Loop) -> None:
    began = time.perf_counter()
    try:
        right = await ask(session, number)
    except (aiohttp.ClientError, TimeoutError, OSError):
        right = False
    if right:
        loop.waited.append(time.perf_counter() - began)
    else:
        loop.failed += 1


def closed(ask: Ask, seconds: float) -> Loop:
    """So many clients, each of which asks again once it is answered."""

    async def run() -> Loop:
        loop, numbers = Loop([], 0, seconds), iter(range(10**9))
        async with _session() as session:
            until = time.perf_counter() + seconds

            async def client() -> None:
                while time.perf_counter() < until:
                    await _one(ask, session, next(numbers), loop)

            await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return loop

    return asyncio.run(run())


def opened(ask: Ask, seconds: float, rate: float) -> Loop:
    """Requests that come when they come (Poisson), so many a second on average."""
    draw = random.Random(0)
    [loop] = beside_each_other([(ask, lambda: draw.expovariate(rate))], seconds)
    return loop


def steady(ask: Ask, rate: float) -> tuple[Ask, Callable[[], float]]:
    """Requests that come evenly, so many a second, for `beside_each_other`."""
    return ask, lambda: 1 / rate


def beside_each_other(streams: Sequence[tuple[Ask, Callable[[], float]]], seconds: float) -> list[Loop]:
    """Several streams of requests at once.

    Args:
        streams: what asks, and the seconds until it asks again, whoever is answered meanwhile.
        seconds: how long.
    """

    async def arrive(session: aiohttp.ClientSession, ask: Ask, pause: Callable[[], float]) -> Loop:
        loop, tasks, number = Loop([], 0, seconds), [], 0
        at = began = time.perf_counter()
        while at < began + seconds:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(_one(ask, session, number, loop)))
            number, at = number + 1, at + pause()
        await asyncio.gather(*tasks)
        return loop

    async def run() -> list[Loop]:
        async with _session() as session:
            return await asyncio.gather(*(arrive(session, ask, pause) for ask, pause in streams))

    return asyncio.run(run())


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120), json_serialize=json.dumps
    )


def posting(url: str, body: Callable[[int], Mapping[str, Any]]) -> Ask:
    """Asks an address for what is made by number; right where the status is 200."""

    async def ask(session: aiohttp.ClientSession, number: int) -> bool:
        async with session.post(url, json=body(number)) as answer:
            await answer.read()
            return answer.status == 200

    return ask
