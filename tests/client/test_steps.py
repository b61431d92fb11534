"""Iterations without asyncio, which a signal handler or a time-out interrupts."""

from __future__ import annotations

import asyncio
import dis
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest

from tasklogs import CaughtUp, EntriesChanged, StatusChanged, SyncFollow, SyncTaskLogsClient
from tasklogs.client import loop_thread, steps, sync
from tasklogs.client.loop_thread import LoopThread
from tasklogs.client.steps import Steps, next_items
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    Request,
    Step,
    caught_up,
    entries,
    entry,
    progress,
    status,
)
from tests.support.fakes.threaded_log_server import ThreadedLogServer, threaded_log_server

MODULES = {one.__file__ for one in (loop_thread, steps, sync)}
SOON = timedelta(seconds=60)
AT_ONCE = timedelta(milliseconds=50)


class Interrupted(Exception):
    """What a signal handler raises."""


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def server() -> Iterator[ThreadedLogServer]:
    with threaded_log_server() as server:
        yield server


async def batches(*sizes: int) -> AsyncIterator[tuple[int, ...]]:
    first = 0
    for size in sizes:
        yield tuple(range(first, first + size))
        first += size


def handing_over(code: CodeType) -> list[dis.Instruction]:
    """Return the instructions between the assignment that hands an item over and the return."""
    found = list(dis.get_instructions(code))
    begin = next(
        index
        for index, one in enumerate(found)
        if one.opname.startswith("STORE_ATTR") and one.argval == "taken"
    )
    end = next(
        index
        for index, one in enumerate(found)
        if index > begin and one.opname.startswith("RETURN_VALUE")
    )
    return found[begin + 1 : end + 1]


HANDING_OVER = {
    function.__code__: {one.offset for one in handing_over(function.__code__)}
    for function in (Steps.__next__, SyncFollow.next)
}


@pytest.mark.parametrize("code", HANDING_OVER, ids=["Steps", "SyncFollow"])
def test_no_signal_handler_can_run_while_an_item_is_handed_over(code: CodeType) -> None:
    """CPython runs them after calls, at the begin of functions, and where a loop jumps back."""
    names = {one.opname for one in handing_over(code)}

    assert not [
        name for name in names if any(part in name for part in ("CALL", "RESUME", "BACKWARD"))
    ]


def interrupted_at(position: int, work: Callable[[], Any]) -> bool:
    """Run `work`, and raise Interrupted at this instruction of it. Return whether it got there."""
    left = position

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in MODULES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti not in HANDING_OVER.get(frame.f_code, ()):
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_exception_at_any_instruction_loses_no_item(thread: LoopThread) -> None:
    expected = list(range(4))
    position, interrupted = 0, True
    while interrupted:
        position += 1
        seen: list[int] = []
        items = Steps(thread, partial(next_items, batches(1, 0, 2, 1)))

        def take(items: Steps[int] = items, seen: list[int] = seen) -> None:
            for item in items:
                seen.append(item)

        interrupted = interrupted_at(position, take)
        take()

        assert seen == expected, f"interrupted at instruction {position}"
    assert position > 200


class Signals:
    """Raises Interrupted in this thread at random moments at which `may_raise` is set."""

    def __init__(self, seen: list[int]) -> None:
        self.may_raise = False
        self.raised = 0
        self._seen = seen
        self._ended = threading.Event()

    @contextmanager
    def sent(self) -> Iterator[None]:
        before = signal.signal(signal.SIGUSR1, self._handle)
        sender = threading.Thread(target=self._send, args=(threading.get_ident(),))
        sender.start()
        try:
            yield
        finally:
            self.may_raise = False
            self._ended.set()
            sender.join()
            signal.signal(signal.SIGUSR1, before)

    def _handle(self, *_: object) -> None:
        if self.may_raise:
            self.may_raise = False
            self.raised += 1
            raise Interrupted

    def _send(self, reader: int) -> None:
        rng = random.Random(5)
        while not self._ended.wait(rng.random() / 1000):
            seen = len(self._seen)
            signal.pthread_kill(reader, signal.SIGUSR1)
            # Mostly the reader goes on between two signals, however slow the machine is.
            while rng.random() < 0.9 and len(self._seen) == seen and not self._ended.wait(0.001):
                pass


def numbered(count: int) -> Callable[[Request], AsyncIterator[Step]]:
    """Return a follow of so many entries, one in each message, from its cursor on."""

    async def play(request: Request) -> AsyncIterator[Step]:
        yield status(request.cursor or "0", ACTIVE)
        for number in range(int(request.cursor or 0) + 1, count + 1):
            yield entries(str(number), entry(number, f"{number}", number))
        yield HOLD

    return play


@pytest.mark.parametrize("resumes", [False, True], ids=["the same follow", "from the cursor"])
def test_signals_at_random_moments_lose_no_event(server: ThreadedLogServer, resumes: bool) -> None:
    count = 3000
    server.server.play = numbered(count)
    seen: list[int] = []
    signals = Signals(seen)
    with SyncTaskLogsClient(server.address) as client, signals.sent():
        follow = client.follow("local/demo")
        while len(seen) < count:
            try:
                signals.may_raise = True
                for event in follow:
                    if isinstance(event, EntriesChanged):
                        seen.append(event.entries[0].id)
                        if len(seen) == count:
                            break
            except Interrupted:
                if resumes:
                    cursor = follow.cursor
                    follow.close()
                    follow = client.follow("local/demo", cursor=cursor)
            signals.may_raise = False
    assert seen == list(range(1, count + 1))
    assert signals.raised > 50, "too few signals to show anything"


def test_a_time_out_loses_no_event_and_keeps_the_stream(server: ThreadedLogServer) -> None:
    go_on = asyncio.Event()
    server.server.streams = [
        [status("c0", ACTIVE), go_on, entries("c1", entry(0, "a", 1)), caught_up("c1"), HOLD]
    ]
    with SyncTaskLogsClient(server.address) as client, client.follow("local/demo") as follow:
        assert isinstance(follow.next(timeout=SOON), StatusChanged)
        for limit in (AT_ONCE, timedelta(0), timedelta(seconds=-1)):
            with pytest.raises(TimeoutError):
                follow.next(timeout=limit)
            assert follow.cursor == "c0"

        server.set(go_on)

        assert isinstance(follow.next(timeout=SOON), EntriesChanged)
        assert isinstance(next(follow), CaughtUp)
        assert follow.cursor == "c1"
    with pytest.raises(StopIteration):
        follow.next(timeout=SOON)
    assert len(server.server.follows) == 1


def test_the_cursor_passes_what_the_reader_does_not_want_to_see(server: ThreadedLogServer) -> None:
    server.server.streams = [[status("c0", ACTIVE), progress("c1"), progress("c2"), HOLD]]
    with SyncTaskLogsClient(server.address) as client, client.follow("local/demo") as follow:
        next(follow)
        while follow.cursor != "c2":
            with pytest.raises(TimeoutError):
                follow.next(timeout=AT_ONCE)


def test_a_follow_that_is_dropped_while_it_is_read_leaves_the_server(
    server: ThreadedLogServer,
) -> None:
    server.server.streams = [[status("c0", ACTIVE), HOLD]]
    with SyncTaskLogsClient(server.address) as client:
        follow = client.follow("local/demo")
        next(follow)
        with pytest.raises(TimeoutError):
            follow.next(timeout=AT_ONCE)

        del follow

        server.wait(server.server.left)


def test_two_threads_cannot_share_a_follow(server: ThreadedLogServer) -> None:
    server.server.streams = [[status("c0", ACTIVE), HOLD]]
    with SyncTaskLogsClient(server.address) as client:
        follow = client.follow("local/demo")
        next(follow)
        reading = threading.Thread(target=list, args=(follow,))
        reading.start()
        server.wait(server.server.held)

        with pytest.raises(RuntimeError, match="another thread"):
            follow.next(timeout=SOON)

        follow.close()
        reading.join()
