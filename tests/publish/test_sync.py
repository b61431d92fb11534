"""The publisher without asyncio: signals, its thread, and a fork. No server is needed for these."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tasklogs import Entry, NotStored, PublisherClosed, SyncPublisher
from tests.client.test_loop_thread import CLOSED_PORT, run_program
from tests.client.test_sync import client_threads

TOKEN = "tla_3531ca09f3c74fb5a44398cf6275b1e9_KnsEXLVheZsZgN8fikdP28Tam1ydZmXxzV2ZyDvHVV0"
AT_ONCE = timedelta(0)


class Interrupted(Exception):
    """What a signal handler raises."""


def publisher(max_held_bytes: int = 10_000) -> SyncPublisher:
    return SyncPublisher(
        CLOSED_PORT,
        token=TOKEN,
        max_held_bytes=max_held_bytes,
        connect_timeout=AT_ONCE,
        close_timeout=AT_ONCE,
    )


@contextmanager
def opened(log: SyncPublisher) -> Iterator[SyncPublisher]:
    """Open `log`. Its server does not exist, so nothing can be stored at the end."""
    log.__enter__()
    try:
        yield log
    finally:
        with pytest.raises(NotStored):
            log.close()


def texts(log: SyncPublisher) -> list[str]:
    """Return what is written and not stored yet."""
    journal = log._publisher._journal
    assert journal is not None
    return [one._content.decode() for epoch in journal._epochs for one in epoch._waiting]


@contextmanager
def interrupting(log: SyncPublisher) -> Iterator[None]:
    """Send this thread a signal whose handler raises, when the publisher has begun its work."""

    def handle(*_: object) -> None:
        raise Interrupted

    reader = threading.get_ident()
    thread = log._thread
    assert thread is not None

    ended = threading.Event()

    def send() -> None:
        while not any(job._task for job in tuple(thread._jobs)):
            if ended.wait(0.001):
                return
        signal.pthread_kill(reader, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        ended.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_append_that_waits_writes_nothing_later() -> None:
    with opened(publisher(max_held_bytes=1)) as log:
        log.append(Entry.output("one"))
        log.append(Entry.output("two"))
        with interrupting(log):
            log.append(Entry.output("interrupted"))
        log._publisher._open()._most_bytes = 10_000
        log.append(Entry.output("later"))

        assert texts(log) == ["one", "two", "later"]


def test_an_interrupted_flush_can_be_repeated() -> None:
    with opened(publisher()) as log:
        log.append(Entry.output("one"))
        with interrupting(log):
            log.flush()
        with pytest.raises(TimeoutError):
            log.flush(timeout=timedelta(milliseconds=10))
        log.append(Entry.output("two"))

        assert texts(log) == ["one", "two"]


async def test_a_publisher_closes_in_a_thread_that_has_a_running_loop() -> None:
    def fail() -> None:
        with publisher() as log:
            log.append(Entry.output("one"))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert client_threads() == []

    with opened(publisher()):
        pass
    assert client_threads() == []


def test_a_publisher_is_entered_once() -> None:
    with opened(publisher()) as log:
        with pytest.raises(PublisherClosed):
            log.__enter__()
        assert len(client_threads()) == 1
    log.close()
    with pytest.raises(PublisherClosed):
        log.append(Entry.output("late"))
    assert client_threads() == []


def test_a_publisher_that_could_not_connect_can_be_entered_again() -> None:
    log = SyncPublisher(
        CLOSED_PORT, token=TOKEN, connect_timeout=timedelta(milliseconds=10), close_timeout=AT_ONCE
    )
    for _ in "12":
        with pytest.raises(Exception, match="UNAVAILABLE"):
            log.__enter__()
        assert client_threads() == []


FORKED = """
import logging, os, sys
from datetime import timedelta
from tasklogs import Entry, SyncPublisher

logging.disable()
log = SyncPublisher(sys.argv[1], token=sys.argv[2],
    connect_timeout=timedelta(0), close_timeout=timedelta(0)).__enter__()
answer = log.begin(Entry.output("a"))
child = os.fork()
if not child:
    for use in (lambda: log.append(Entry.output("b")), lambda: answer.extend("b"),
                lambda: answer.replace("b"), log.begin_epoch, log.flush):
        try:
            print("no error", use())
        except RuntimeError as error:
            print(error)
    log.close()
    sys.exit()
print(os.waitpid(child, 0)[1])
answer.extend("c")
"""


def test_a_publisher_that_a_fork_inherits_says_so_at_once() -> None:
    *said, ended = run_program(FORKED, CLOSED_PORT, TOKEN).splitlines()

    assert ended == "0"
    assert len(said) == 5
    assert all(line.startswith("this process was forked after") for line in said)
