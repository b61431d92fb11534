"""A reader without asyncio that stops at random moments in every way that there is.

`python -m tests.system.readers.sync_readers --minutes 10 --seed 1`. The log grows all the time, and
its streams break. Each event must arrive once, in order, and no thread may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from types import TracebackType

import grpc

from tasklogs import (
    ClientClosed,
    EntriesChanged,
    FollowEvent,
    ReconnectWaits,
    SyncFollow,
    SyncTaskLogsClient,
)
from tasklogs.errors import TaskNotFound
from tests.client.test_follow import DRAINING, refusal
from tests.support.fakes.log_server import ACTIVE, END, Request, Step, entries, entry, status
from tests.support.fakes.threaded_log_server import threaded_log_server

WAITS = ReconnectWaits(first=timedelta(milliseconds=1), cap=timedelta(milliseconds=5))


class Stop(Exception):
    """What the reader's own code or its signal handler raises."""


class GrowingLog:
    """Plays entries 1, 2, 3 ... after the cursor, at random intervals; streams end at random."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.deleted = False
        """Whether the next stream, or the next step of one, finds no task."""

    async def play(self, request: Request) -> AsyncIterator[Step]:
        rng = self._rng
        number = int(request.cursor or 0)
        yield status(str(number), ACTIVE)
        for _ in range(rng.randrange(1, 2000)):
            if self.deleted:
                self.deleted = False
                yield refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() / 100)
            number += 1
            yield entries(str(number), entry(number, "x", number))
        yield END if rng.random() < 0.5 else DRAINING


class Alarms:
    """SIGALRM at random moments, whose handler raises Stop where `armed` is set."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.armed = False
        self.raised = 0

    def __enter__(self) -> Alarms:
        self._before = signal.signal(signal.SIGALRM, self._handle)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def set(self) -> None:
        """Let the next alarm raise."""
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + self._rng.random() / 200)

    def _handle(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            self.raised += 1
            raise Stop


class Reader:
    """Reads the log in one way after the other, and checks what it gets."""

    def __init__(self, address: str, log: GrowingLog, rng: random.Random) -> None:
        self._log = log
        self._rng = rng
        self._client = SyncTaskLogsClient(address, reconnect_waits=WAITS).connect()
        self._follow = self._client.follow("local/demo")
        self.events: list[FollowEvent] = []
        self.last = 0
        self.ways: Counter[str] = Counter()
        self.wrong: list[str] = []

    def round(self, alarms: Alarms) -> None:
        """Read until something stops it, then go on with the same follow or from its cursor."""
        ways = (
            self._breaks,
            self._raises,
            self._times_out,
            self._is_closed_elsewhere,
            self._client_is_closed_elsewhere,
            self._task_is_deleted,
        )
        if self._rng.random() < 0.9:
            self.ways["alarm"] += 1
            try:
                alarms.set()
                self._read(self._follow, 10_000)
            except Stop:
                pass
            alarms.armed = False
        else:
            way = self._rng.choice(ways)
            self.ways[way.__name__] += 1
            way()
        if self._rng.random() < 0.1:
            self._begin_again()

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _breaks(self) -> None:
        self._read(self._follow, self._rng.randrange(1, 50))

    def _raises(self) -> None:
        try:
            for event in self._follow:
                self.events.append(event)
                if self._rng.random() < 0.05:
                    raise Stop
        except Stop:
            pass

    def _times_out(self) -> None:
        for _ in range(self._rng.randrange(1, 50)):
            try:
                limit = timedelta(seconds=self._rng.choice([-1, 0, 0.0005, 0.005]))
                self.events.append(self._follow.next(timeout=limit))
            except TimeoutError:
                continue

    def _is_closed_elsewhere(self) -> None:
        closing = self._soon(self._follow.close)
        self._read(self._follow, 1_000_000)
        closing.join()
        self._begin_again()

    def _client_is_closed_elsewhere(self) -> None:
        closing = self._soon(self._client.close)
        self._read(self._follow, 1_000_000)
        try:
            self._client.get_task("local/demo")
            self.wrong.append("a closed client made a call")
        except ClientClosed:
            pass
        closing.join()
        self._client.connect()
        self._begin_again()

    def _task_is_deleted(self) -> None:
        self._log.deleted = True
        try:
            self._read(self._follow, 1_000_000)
            self.wrong.append("the follow of a deleted task ended without an error")
        except TaskNotFound:
            pass
        if list(self._follow):
            self.wrong.append("a follow that had raised went on")
        self._begin_again()

    def _begin_again(self) -> None:
        cursor = self._follow.cursor
        self._follow = self._client.follow("local/demo", cursor=cursor)

    def _soon(self, what: Callable[[], None]) -> threading.Thread:
        timer = threading.Timer(self._rng.random() / 50, what)
        timer.start()
        return timer

    def _read(self, follow: SyncFollow, count: int) -> None:
        for event in follow:
            # One call of a built-in function: no signal handler runs between `next` and its end.
            self.events.append(event)
            count -= 1
            if not count:
                return

    def check(self) -> None:
        """Check the events since the last check."""
        events, self.events = self.events, []
        for event in events:
            if isinstance(event, EntriesChanged):
                found = event.entries[0].id
                if found != self.last + 1:
                    self.wrong.append(f"{found} after {self.last}")
                self.last = found


def main() -> None:
    """Read for so many minutes; print what happened; fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    log = GrowingLog(random.Random(given.seed))
    ends_at = time.monotonic() + given.minutes * 60
    rng = random.Random(given.seed + 1)
    with threaded_log_server() as server, Alarms(rng) as alarms:
        server.server.play = log.play
        server.server.answers = []
        reader = Reader(server.address, log, rng)
        while time.monotonic() < ends_at and not reader.wrong:
            reader.round(alarms)
            reader.check()
        reader.close()
    left = [one.name for one in threading.enumerate() if one.name == "tasklogs client"]
    print(
        f"{reader.last} events, {alarms.raised} alarms, {dict(reader.ways)}, threads left: {left}"
    )
    if reader.wrong or left:
        raise SystemExit(f"wrong: {reader.wrong[:10]}")


if __name__ == "__main__":
    main()
