"""A reader without asyncio, in the main thread, where alarms can stop it at any instruction."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from tasklogs import ClientClosed, FollowEvent, SyncFollow, SyncTaskLogsClient, errors
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.system.readers.async_readers import WAITS, Broken
from tests.system.readers.growing_log import TASK, GrowingLog, Seen, growing_log

T = TypeVar("T")


class Alarm(BaseException):
    """What the signal handler raises."""


class LogThread:
    """The log and its server, on a loop in another thread."""

    def __init__(self, log: GrowingLog, loop: asyncio.AbstractEventLoop) -> None:
        self.log = log
        self._loop = loop

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(DEADLINE_SECONDS)

    def set(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)


@contextmanager
def log_in_a_thread(dsn: str, seed: int) -> Iterator[LogThread]:
    """Serve an empty log on a migrated database, as `growing_log` does."""
    made: Future[LogThread] = Future()
    end = asyncio.Event()

    async def serve() -> None:
        async with growing_log(dsn, seed) as log:
            made.set_result(LogThread(log, asyncio.get_running_loop()))
            await end.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if made.done():
                raise
            made.set_exception(error)

    thread = threading.Thread(target=work, name="growing log")
    thread.start()
    log = made.result(DEADLINE_SECONDS)
    try:
        yield log
    finally:
        log.set(end)
        thread.join()


class Alarms:
    """One SIGALRM at a time, at a random moment. Its handler raises Alarm, once, while it is set.

    Python drops an exception that is raised in a weak reference's callback or in `__del__`. So a
    reader must not wait for the alarm.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._is_set = False
        self.raised = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._handle)
        report = sys.unraisablehook

        def report_others(what: sys.UnraisableHookArgs) -> None:
            if not isinstance(what.exc_value, Alarm):
                report(what)

        sys.unraisablehook = report_others
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = report

    def set(self) -> None:
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + self._rng.random() / 200)

    def unset(self) -> None:
        self._is_set = False

    def _handle(self, *_: object) -> None:
        if self._is_set:
            self._is_set = False
            self.raised += 1
            raise Alarm


class SyncReader:
    """Reads the log with one client after another, in every way that a program may."""

    def __init__(self, log: GrowingLog, seed: int) -> None:
        self.seen = Seen()
        self._log = log
        self._rng = random.Random(seed)
        self.alarms = Alarms(self._rng)
        self._client = SyncTaskLogsClient(log.address, token=self._token, reconnect_waits=WAITS)
        self._follow: SyncFollow | None = None
        self._events: list[FollowEvent] = []
        """Not checked yet: an alarm must not come between `next` and the check."""
        self._ways: list[Callable[[SyncFollow], None]] = [
            self._alarm,
            self._alarm,
            self._alarm,
            self._time_out,
            self._break,
            self._raise,
            self._close_follow,
            self._close_client,
            self._drop,
            self._delete_another,
        ]

    def read(self, seconds: float) -> None:
        """Read in random ways for so long."""
        self._client.connect()
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            way = self._rng.choice(self._ways)
            self.seen.did(way.__name__.strip("_"))
            way(self._current())
            self._check()

    def catch_up(self, entries: int) -> None:
        """Read the rest of the log, which has so many entries."""
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while not self.seen.has_all(entries):
            self._next(timedelta(seconds=ends_at - time.monotonic()))
            self._check()

    def sees_the_end(self) -> None:
        """Read until the task is deleted."""
        try:
            while True:
                self._next(timedelta(seconds=DEADLINE_SECONDS))
        except errors.TaskNotFound:
            self.seen.did("deleted")
        self._check()

    def close(self) -> None:
        self._client.close()

    def _current(self) -> SyncFollow:
        if self._follow is None:
            self._follow = self._client.follow(
                TASK,
                cursor=self.seen.cursor,
                deltas=self._rng.random() < 0.8,
                connect_timeout=None,
            )
        return self._follow

    def _next(self, timeout: timedelta) -> None:
        self._events.append(self._current().next(timeout))

    def _check(self) -> None:
        events, self._events = self._events, []
        for event in events:
            self.seen.take(event)
        if self._follow is not None:
            assert self._follow.cursor == self.seen.cursor

    def _token(self) -> str:
        if self._rng.random() < 0.5:
            time.sleep(self._some())
        return "token"

    def _some(self) -> float:
        return self._rng.random() ** 3 * 0.05

    def _alarm(self, follow: SyncFollow) -> None:
        for _ in range(self._rng.randrange(1, 20)):
            most = 1000
            try:
                self.alarms.set()
                for event in follow:
                    # Python handles no signal between the end of `next` and that of this call.
                    self._events.append(event)
                    most -= 1
                    if not most:
                        break
            except Alarm:
                self.seen.did("alarmed")
            self.alarms.unset()

    def _time_out(self, follow: SyncFollow) -> None:
        for _ in range(self._rng.randrange(1, 50)):
            try:
                limit = self._rng.choice([-1, 0, 0.0005, 0.005, 0.05])
                self._next(timedelta(seconds=limit))
            except TimeoutError:
                self.seen.did("timed out")

    def _break(self, follow: SyncFollow) -> None:
        most = self._rng.randrange(1, 10)
        for event in follow:
            self._events.append(event)
            most -= 1
            if most == 0:
                break

    def _raise(self, follow: SyncFollow) -> None:
        self._follow = None
        try:
            with follow:
                for event in follow:
                    self._events.append(event)
                    if self._rng.random() < 0.3:
                        raise Broken
        except Broken:
            assert follow.cursor == self._events[-1].cursor

    def _close_follow(self, follow: SyncFollow) -> None:
        closing = self._soon(follow.close)
        self._follow = None
        self._events.extend(follow)
        closing.join()

    def _close_client(self, follow: SyncFollow) -> None:
        closing = self._soon(self._client.close)
        self._follow = None
        self._events.extend(follow)
        try:
            self._client.get_task(TASK)
        except ClientClosed:
            pass
        else:
            raise AssertionError("a closed client made a call")
        closing.join()
        self._client.connect()

    def _drop(self, follow: SyncFollow) -> None:
        if self._rng.random() < 0.5:
            with suppress(TimeoutError):
                self._next(timedelta(seconds=self._some()))
        self._follow = None

    def _delete_another(self, _: SyncFollow) -> None:
        with SyncTaskLogsClient(self._log.server.address) as operator:
            made = operator.create_task(f"t{self._rng.randrange(1 << 60):x}", standalone=True)
            follow = self._client.follow(made.task.id, connect_timeout=None)
            deleting = self._soon(lambda: operator.delete_task(made.task.id))
            try:
                for _event in follow:
                    pass
            except errors.TaskNotFound:
                pass
            else:
                raise AssertionError("the follow of a deleted task ended without an error")
            deleting.join()

    def _soon(self, what: Callable[[], None]) -> threading.Timer:
        timer = threading.Timer(self._some(), what)
        timer.start()
        return timer


def read_without_asyncio(thread: LogThread, seed: int, seconds: float) -> SyncReader:
    """Let one reader, in the main thread, read a growing log for so long, then its rest and end.

    Raises where it saw something wrong. No thread of a client and no follow is left in the end.
    """
    log = thread.log
    full, stop = asyncio.Event(), asyncio.Event()
    growing, breaking = thread.start(log.grow(full)), thread.start(log.break_streams(stop))
    reader = SyncReader(log, seed)
    with reader.alarms.handled():
        reader.read(seconds)
    thread.set(stop)
    thread.set(full)
    breaking.result(DEADLINE_SECONDS)
    growing.result(DEADLINE_SECONDS)
    reader.catch_up(log.entries)
    thread.run(log.delete())
    reader.sees_the_end()
    reader.close()
    thread.run(log.nobody_follows())
    left = [one.name for one in threading.enumerate() if one.name == "tasklogs client"]
    assert left == []
    return reader
