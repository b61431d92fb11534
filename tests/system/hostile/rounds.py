"""Quiet and hostile rounds in turns, and their results."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.system.hostile.behaviours import HALF_OPEN
from tests.system.hostile.readers import KINDS, Latencies, Readers
from tests.system.hostile.target import Target

_SETTLE_SECONDS = 1.5
_HALF_OPEN_SECONDS = 15.0
_AFTER_SECONDS = 20.0
_FILES_MARGIN = 8
_LOOK_SECONDS = 0.1


@dataclass
class Footprint:
    """What a server uses: resident bytes and open files."""

    rss: int
    files: int

    @classmethod
    def of(cls, process: psutil.Process) -> Footprint:
        return cls(process.memory_info().rss, process.num_fds())


@dataclass
class Comparison:
    """The effect of one behaviour, or of several together, on readers and server."""

    name: str
    quiet: list[Latencies] = field(default_factory=list)
    hostile: list[Latencies] = field(default_factory=list)
    before: Footprint = field(default_factory=lambda: Footprint(0, 0))
    during: Footprint = field(default_factory=lambda: Footprint(0, 0))
    after: Footprint = field(default_factory=lambda: Footprint(0, 0))
    back_seconds: float = 0.0
    """The longest time until the number of open files was as before."""
    cores: float = 0.0
    """The CPU cores that the server used in the hostile rounds."""
    tallies: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [failure for one in (*self.quiet, *self.hostile) for failure in one.failures]

    def quantile(self, which: str, kind: str, share: float) -> float:
        """Return a quantile over all rounds, in seconds."""
        rounds: list[Latencies] = getattr(self, which)
        return quantile([second for one in rounds for second in one.seconds[kind]], share)

    def ratio(self, kind: str, share: float = 0.99) -> float:
        return self.quantile("hostile", kind, share) / self.quantile("quiet", kind, share)

    def ratios(self, kind: str, share: float = 0.99) -> list[float]:
        """Return the ratio of each round. Their spread is the machine's noise."""
        return [
            quantile(bad.seconds[kind], share) / quantile(good.seconds[kind], share)
            for good, bad in zip(self.quiet, self.hostile, strict=True)
        ]

    def worst(self) -> float:
        return max(self.ratio(kind) for kind in KINDS)


def quantile(values: Sequence[float], share: float) -> float:
    if not values:  # every call failed
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Attackers:
    """The attackers' process, as this process sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begin(self, target: Target, behaviours: Sequence[str]) -> None:
        await self._tell({"target": target.as_json(), "behaviours": list(behaviours)})

    async def end(self) -> Mapping[str, Any]:
        return await self._tell({})

    async def _tell(self, what: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(what)}\n".encode())
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line, "the attackers' process ended"
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def attackers() -> AsyncIterator[Attackers]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.hostile.attacker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Attackers(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def compare(
    name: str,
    behaviours: Sequence[str],
    *,
    target: Target,
    server: psutil.Process,
    reading: Readers,
    attacking: Attackers,
    rounds: int,
    seconds: float,
) -> Comparison:
    """Read without and with the attack, in turns."""
    compared = Comparison(name, before=Footprint.of(server))
    compared.during = compared.before
    for _ in range(rounds):
        compared.quiet.append(await reading.read_for(seconds))
        await attacking.begin(target, behaviours)
        await _settle(server, compared.before.files, target, behaviours)
        used, began = _cpu_seconds(server), time.monotonic()
        watching = asyncio.create_task(_watch(server, compared))
        compared.hostile.append(await reading.read_for(seconds))
        watching.cancel()
        compared.cores += (_cpu_seconds(server) - used) / (time.monotonic() - began) / rounds
        compared.tallies.append(await attacking.end())
        compared.back_seconds = max(
            compared.back_seconds, await _back(server, compared.before.files)
        )
    compared.after = Footprint.of(server)
    return compared


async def _settle(
    server: psutil.Process, files: int, target: Target, behaviours: Sequence[str]
) -> None:
    """Give the attack time to begin. If it keeps connections half open, wait until they are."""
    await asyncio.sleep(_SETTLE_SECONDS)
    if set(behaviours) <= HALF_OPEN:
        with suppress(TimeoutError):
            async with asyncio.timeout(_HALF_OPEN_SECONDS):
                while server.num_fds() < files + 0.95 * target.half_open:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)


async def _watch(server: psutil.Process, compared: Comparison) -> None:
    while True:
        now = Footprint.of(server)
        compared.during = Footprint(
            max(now.rss, compared.during.rss), max(now.files, compared.during.files)
        )
        await asyncio.sleep(_LOOK_SECONDS)


async def _back(server: psutil.Process, files: int) -> float:
    """Wait until the server has closed the attackers' connections. Return how long that took."""
    began = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(_AFTER_SECONDS):
            while server.num_fds() > files + _FILES_MARGIN:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
