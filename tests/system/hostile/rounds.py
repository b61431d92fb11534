"""Quiet and hostile rounds in turns, and their results."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.system.hostile.behaviours import CONTROL, HALF_OPEN
from tests.system.hostile.memory import forget_peak, peak_bytes
from tests.system.hostile.readers import KINDS, Latencies, Readers
from tests.system.hostile.target import Target

_SETTLE_SECONDS = 1.5
_HALF_OPEN_SECONDS = 15.0
_AFTER_SECONDS = 20.0
_FILES_MARGIN = 8
_LOOK_SECONDS = 0.1
_PIECE_SECONDS = 2.0


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
    busy: list[Latencies] = field(default_factory=list)
    """While a process that sends nothing takes as much CPU time as the attackers did."""
    hostile: list[Latencies] = field(default_factory=list)
    before: Footprint = field(default_factory=lambda: Footprint(0, 0))
    during: Footprint = field(default_factory=lambda: Footprint(0, 0))
    after: Footprint = field(default_factory=lambda: Footprint(0, 0))
    back_seconds: float = 0.0
    """The longest time until the number of open files was as before."""
    peak_bytes: int = 0
    """The most resident memory of the server in a hostile round, and until it was over."""
    cores: float = 0.0
    """The CPU cores that the server used in the hostile rounds."""
    tallies: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        rounds = (*self.quiet, *self.hostile, *self.busy)
        return [failure for one in rounds for failure in one.failures]

    def quantile(self, which: str, kind: str, share: float) -> float:
        """Return a quantile over all rounds, in seconds."""
        rounds: list[Latencies] = getattr(self, which)
        return quantile([second for one in rounds for second in one.seconds[kind]], share)

    def ratio(self, kind: str, share: float = 0.99) -> float:
        return self.quantile("hostile", kind, share) / self.quantile("busy", kind, share)

    def ratios(self, kind: str, share: float = 0.99) -> list[float]:
        """Return the ratio of each round. Their spread is the machine's noise."""
        return [
            quantile(bad.seconds[kind], share) / quantile(good.seconds[kind], share)
            for good, bad in zip(self.busy, self.hostile, strict=True)
        ]

    def worst(self) -> float:
        return max(self.ratio(kind) for kind in KINDS)

    def longest(self) -> float:
        """Return how long the slowest honest call in a hostile round took, in seconds."""
        return max(
            second for one in self.hostile for all_ in one.seconds.values() for second in all_
        )

    def ends(self) -> Counter[str]:
        """Return how many of the attackers' calls ended with which status."""
        ended: Counter[str] = Counter()
        for tallies in self.tallies:
            for tally in tallies.values():
                ended.update(tally["ends"])
        return ended


def quantile(values: Sequence[float], share: float) -> float:
    if not values:  # every call failed
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Attackers:
    """The attackers' process, as this process sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begin(self, target: Target, behaviours: Sequence[str], share: float) -> None:
        await self._tell(
            {"target": target.as_json(), "behaviours": list(behaviours), "share": share}
        )

    async def end(self) -> Mapping[str, Any]:
        return await self._tell({})

    def cpu_seconds(self) -> float:
        return _cpu_seconds(psutil.Process(self._process.pid))

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


@dataclass(frozen=True)
class Plan:
    """How long and how often to compare."""

    rounds: int
    seconds: float
    hostile_seconds: float
    share: float
    """The share of one CPU that the attackers may take."""
    most_bytes: int
    """The server's ceiling of memory. An attack that has passed it ends early."""


async def compare(
    name: str,
    behaviours: Sequence[str],
    *,
    target: Target,
    server: psutil.Process,
    reading: Readers,
    attacking: Attackers,
    plan: Plan,
) -> Comparison:
    """Read without the attack, with it, and beside a busy process that sends nothing, in turns."""
    compared = Comparison(name, before=Footprint.of(server))
    compared.during = compared.before
    for _ in range(plan.rounds):
        compared.quiet.append(await reading.read_for(plan.seconds))
        forget_peak(server.pid)
        await attacking.begin(target, behaviours, plan.share)
        await _settle(server, compared.before.files, target, behaviours)
        used, began = _cpu_seconds(server), time.monotonic()
        attackers_used = attacking.cpu_seconds()
        watching = asyncio.create_task(_watch(server, compared))
        compared.hostile.append(await _read_below(reading, server.pid, plan))
        watching.cancel()
        seconds = time.monotonic() - began
        compared.cores += (_cpu_seconds(server) - used) / seconds / plan.rounds
        attackers_cores = (attacking.cpu_seconds() - attackers_used) / seconds
        compared.tallies.append(await attacking.end())
        compared.back_seconds = max(
            compared.back_seconds, await _back(server, compared.before.files)
        )
        compared.peak_bytes = max(compared.peak_bytes, peak_bytes(server.pid))
        await attacking.begin(target, [CONTROL], attackers_cores)
        compared.busy.append(await reading.read_for(plan.seconds))
        await attacking.end()
    compared.after = Footprint.of(server)
    return compared


async def _read_below(reading: Readers, pid: int, plan: Plan) -> Latencies:
    """Read for the length of a hostile round, or until the server has passed its ceiling."""
    noted = Latencies()
    left = plan.hostile_seconds
    while left > 0 and peak_bytes(pid) <= plan.most_bytes:
        piece = min(left, _PIECE_SECONDS)
        left -= piece
        noted.add(await reading.read_for(piece))
    return noted


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
