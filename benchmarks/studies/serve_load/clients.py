"""Clients of `salema-serve`, good and bad, each a coroutine: `python -m ...clients` runs a crowd in this process."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from salema.runtime.serve.protocol import unpacked

FRAMES = 16
_SIZE_HW = (240, 320)
_FAREWELL_S = 0.5  # of those who don't read: what they are answered lies behind what they were sent
_LOSSES = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)


@functools.cache
def frames_of(seed: int) -> list[NDArray[np.uint8]]:
    """Returns a client's own frames: blurred noise with a bright disc that moves."""
    draw = np.random.default_rng(seed)
    height, width = _SIZE_HW
    ground = cv2.GaussianBlur(draw.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 5)
    made = []
    for x, y in zip(draw.integers(0, width, FRAMES), draw.integers(0, height, FRAMES), strict=True):
        made.append(np.asarray(cv2.circle(ground.copy(), (int(x), int(y)), 25, (230, 240, 250), -1), np.uint8))
    return made


@dataclass
class Seen:
    """What a crowd has seen.

    Attributes:
        latencies_ms: of the clients that behave, from sending a frame to its map.
        maps: each of their maps, as bytes of PNG, by the client's seed, in order.
        pictures: what each watcher got, in all.
        refused: how often the bad ones were refused or cut off, by kind.
        lost: connections of those that behave that ended before their time, in words.
    """

    latencies_ms: list[float] = field(default_factory=list)
    maps: dict[int, list[str]] = field(default_factory=dict)
    pictures: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def refuse(self, kind: str) -> None:
        """Counts a refusal."""
        self.refused[kind] = self.refused.get(kind, 0) + 1


@dataclass(frozen=True)
class Crowd:
    """Clients against one server here, until a time by `time.monotonic`, each at a rate of frames a second."""

    port: int
    until_s: float
    seen: Seen
    rate: float

    def connect(self, path: str = "/api/stream", **options: Any) -> connect:
        """Opens a WebSocket."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", max_size=None, compression=None, proxy=None, **options)

    @property
    def is_over(self) -> bool:
        """Whether the clients end."""
        return time.monotonic() > self.until_s

    async def steady(self, seed: int) -> None:
        """Sends its frames one by one, in a loop, and waits for each map; nothing may disturb it."""
        frames, maps = frames_of(seed), self.seen.maps.setdefault(seed, [])
        try:
            async with self.connect() as socket:
                await _settle(socket, form="png", bgr_hw=_SIZE_HW)
                while not self.is_over:
                    start_s = time.monotonic()
                    await socket.send(frames[len(maps) % FRAMES].tobytes())
                    message = await asyncio.wait_for(socket.recv(), 30)
                    self.seen.latencies_ms.append(1000 * (time.monotonic() - start_s))
                    assert isinstance(message, bytes)
                    maps.append(unpacked(message)[1].hex())
                    pause_s = random.uniform(0.5, 1.5) / self.rate - (time.monotonic() - start_s)  # noqa: S311
                    await asyncio.sleep(max(pause_s, 0))
        except _LOSSES as error:
            self.seen.lost.append(f"steady {seed}: {type(error).__name__} {error}")

    async def watcher(self, seed: int) -> None:
        """Watches the server's source, as the page does."""
        try:
            async with self.connect("/api/sources/0/live") as socket:
                while not self.is_over:
                    await socket.send('{"type": "next"}')
                    await asyncio.wait_for(socket.recv(), 30)
                    self.seen.pictures += 1
                    await asyncio.sleep(0.5 / self.rate)
        except _LOSSES as error:
            self.seen.lost.append(f"watcher {seed}: {type(error).__name__} {error}")

    async def slow(self, seed: int) -> None:
        """Sends as it may, and reads a result now and then."""
        frames = [frame.tobytes() for frame in frames_of(seed)]
        async with self.connect(max_queue=1, close_timeout=_FAREWELL_S) as socket:
            await _settle(socket, form="jpeg", bgr_hw=_SIZE_HW)
            number = 0
            while not self.is_over:
                for frame in frames:
                    await asyncio.wait_for(socket.send(frame), 60)
                message = await asyncio.wait_for(socket.recv(), 60)
                assert isinstance(message, bytes)
                header, _ = unpacked(message)
                assert header["frame"] > number
                number = header["frame"]
                await asyncio.sleep(1)

    async def vanishing(self, seed: int) -> None:
        """Goes without a word in the middle of what it sends, and comes again."""
        frame = frames_of(seed)[0].tobytes()
        while not self.is_over:
            async with self.connect() as socket:
                await _settle(socket, bgr_hw=_SIZE_HW)
                for _ in range(random.randint(0, 3)):  # noqa: S311
                    await socket.send(frame)
                socket.transport.abort()
            self.seen.refuse("vanished")
            await asyncio.sleep(0.2)

    async def lying(self, seed: int) -> None:
        """Says what is not so: of sizes, of kinds, of lengths; and sends what is no message at all."""
        chance = random.Random(seed)  # noqa: S311
        while not self.is_over:
            await chance.choice((self._lie_by_message, self._lie_by_request))(chance)
            self.seen.refuse("lied")
            await asyncio.sleep(0.2)

    async def _lie_by_message(self, chance: random.Random) -> None:
        with suppress(*_LOSSES):
            async with self.connect() as socket:
                await _settle(socket, bgr_hw=(8, 8))
                noise = chance.randbytes(5000)
                lies: list[bytes | str] = [bytes(100), noise, b"\xff\xd8\xff" + noise, "{", bytes(30_000_000)]
                for lie in chance.sample(lies, 3):
                    await socket.send(lie)
                await asyncio.wait_for(socket.recv(), 10)

    async def _lie_by_request(self, chance: random.Random) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        length = chance.choice([b"999999999", b"500", b"-1", b"x"])
        head = b"POST /api/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n"
        writer.write(head + chance.randbytes(100))
        with suppress(*_LOSSES):
            await asyncio.wait_for(reader.read(1000), 2)
        writer.close()

    async def flooding(self, seed: int) -> None:
        """Sends as fast as it can, reads whatever comes, and never waits for it."""
        frame = cv2.imencode(".jpg", frames_of(seed)[0])[1].tobytes()
        async with self.connect(close_timeout=_FAREWELL_S) as socket:

            async def read() -> None:
                with suppress(*_LOSSES):
                    while True:
                        await socket.recv()

            reading = asyncio.ensure_future(read())
            while not self.is_over:
                await socket.send(frame)
                await socket.send('{"type": "settings", "opacity": 0.4}')
            reading.cancel()

    async def run(self, kinds: dict[str, int]) -> None:
        """Runs so many clients of each kind until the end; bad ones that are cut off come again."""
        names = [kind for kind, count in kinds.items() for _ in range(count)]
        for seed in range(len(names)):
            frames_of(seed)  # made before the first is sent: it would hold up those that wait for their maps
        await asyncio.gather(*(self._kept(kind, getattr(self, kind), seed) for seed, kind in enumerate(names)))

    async def _kept(self, kind: str, client: Callable[[int], Awaitable[None]], seed: int) -> None:
        await asyncio.sleep(random.uniform(0, 1))  # noqa: S311 - not all at once
        while not self.is_over:
            try:
                await client(seed)
            except _LOSSES:
                self.seen.refuse(kind)
                await asyncio.sleep(0.2)
            if kind in {"steady", "watcher"}:
                return


async def _settle(socket: ClientConnection, **values: Any) -> None:
    await socket.send(json.dumps({"type": "settings", **values}))


def main() -> None:
    """Runs a crowd: port, seconds, rate, and kinds in JSON; prints what it has seen."""
    port, seconds, rate, kinds = sys.argv[1:]
    crowd = Crowd(int(port), time.monotonic() + float(seconds), Seen(), float(rate))
    asyncio.run(crowd.run(json.loads(kinds)))
    print(json.dumps(vars(crowd.seen)))


if __name__ == "__main__":
    main()
