"""The thread of the client without asyncio: what starts it, what ends it, and who may wait."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest

from tasklogs import Follow, SyncTaskLogsClient
from tasklogs.client.loop_thread import Job
from tasklogs.v1 import tasks_pb2
from tests.cli.samples import page, task
from tests.client.test_follow import DRAINING
from tests.client.test_sync import client_threads
from tests.support.fakes.log_server import ACTIVE, HOLD, entry, status
from tests.support.fakes.threaded_log_server import ThreadedLogServer, threaded_log_server

CLOSED_PORT = "127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[ThreadedLogServer]:
    with threaded_log_server() as server:
        yield server


def run_program(text: str, *arguments: str) -> str:
    """Run a program, which must end without an error and print nothing on stderr."""
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        # gRPC's own handlers of a fork sometimes crash the child inside of fork().
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
    )
    # gRPC says on stderr that a process with its threads forks.
    said = [line for line in ran.stderr.splitlines() if "fork_posix" not in line]
    assert (ran.returncode, said) == (0, [])
    return ran.stdout


async def test_a_client_closes_in_a_thread_that_has_a_running_loop() -> None:
    """In a notebook, or in a handler of an asynchronous framework."""
    with SyncTaskLogsClient(CLOSED_PORT):
        assert len(client_threads()) == 1
    assert client_threads() == []

    with pytest.raises(ValueError, match="mine"), SyncTaskLogsClient(CLOSED_PORT):
        raise ValueError("mine")
    assert client_threads() == []


def test_opening_twice_starts_one_thread() -> None:
    with SyncTaskLogsClient(CLOSED_PORT) as client, client:
        client.connect()
        assert len(client_threads()) == 1
    client.close()
    assert client_threads() == []

    with client:
        assert len(client_threads()) == 1
    assert client_threads() == []


def test_a_function_of_the_program_that_uses_its_own_client_is_told_so(
    server: ThreadedLogServer,
) -> None:
    server.server.streams = [[status("c0", ACTIVE), DRAINING]]
    said: list[str] = []

    def use_all() -> None:
        uses: list[Callable[[], object]] = [
            lambda: client.get_task("local/demo"),
            lambda: client.follow("local/demo"),
            lambda: next(follow),
            follow.close,
            client.close,
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="it would wait for itself"):
                use()
            said.append("so")

    def on_reconnect(_: object) -> None:
        use_all()
        raise KeyError("given up")

    def token() -> str:
        use_all()
        raise KeyError("no token")

    with SyncTaskLogsClient(server.address) as client:
        follow = client.follow("local/demo", on_reconnect=on_reconnect)
        with pytest.raises(KeyError, match="given up"):
            list(follow)
    with SyncTaskLogsClient(server.address, token=token) as client:
        follow = client.follow("local/demo")
        with pytest.raises(KeyError, match="no token"):
            client.get_task("local/demo")
    assert len(said) == 10


def test_only_the_thread_of_the_client_changes_its_set_of_follows() -> None:
    """It iterates over the set when the client closes."""
    changed_by = []

    class Follows(WeakSet[Follow]):
        def add(self, item: Follow) -> None:
            changed_by.append(threading.current_thread().name)
            super().add(item)

    with SyncTaskLogsClient(CLOSED_PORT) as client:
        client._client._follows = Follows()
        client.follow("local/demo")
    assert changed_by == ["tasklogs client"]


def test_several_threads_close_a_client_that_others_use(server: ThreadedLogServer) -> None:
    server.server.answers = [HOLD] * 4
    client = SyncTaskLogsClient(server.address).connect()
    ends: list[str] = []

    def call() -> None:
        try:
            client.get_task("local/demo")
        except RuntimeError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    threads += [threading.Thread(target=client.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["not open" in one for one in ends] == [True] * 4
    assert client_threads() == []


def test_a_signal_that_raises_cancels_the_call() -> None:
    asked, cancelled = threading.Event(), threading.Event()

    async def never() -> str:
        asked.set()
        try:
            return await asyncio.Future()
        finally:
            cancelled.set()

    class Interrupted(Exception):
        pass

    def handle(*_: object) -> None:
        raise Interrupted

    me = threading.get_ident()

    def send() -> None:
        asked.wait()
        signal.pthread_kill(me, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    try:
        with SyncTaskLogsClient(CLOSED_PORT, token=never) as client:
            sender.start()
            with pytest.raises(Interrupted):
                client.get_task("local/demo")
            assert cancelled.wait(60)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_page_takes_one_hop_to_the_loop(
    server: ThreadedLogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.server.answers = [
        page(*(entry(number, "x", number) for number in range(50)), next_page_token="2"),
        page(*(entry(number, "x", number) for number in range(50, 100))),
        tasks_pb2.ListTasksResponse(tasks=[task(f"t{number}") for number in range(50)]),
    ]
    with SyncTaskLogsClient(server.address) as client:
        log, listed = client.get("local/demo"), client.list_tasks()
        hops: list[Job[Any]] = []
        submit = client._opened().submit

        def counted(job: Job[Any]) -> None:
            hops.append(job)
            submit(job)

        monkeypatch.setattr(client._opened(), "submit", counted)

        assert [one.id for one in log.entries()] == list(range(100))
        assert len(hops) == 3  # two pages and the end
        assert [one.name for one in listed] == [f"t{number}" for number in range(50)]
        assert len(hops) == 5


FORKED = """
import os, sys, threading
from tasklogs import SyncTaskLogsClient

client = SyncTaskLogsClient(sys.argv[1]).connect()
follow, log, listed = client.follow("a/b"), client.get("a/b"), client.list_tasks()
next(follow)
read, write = os.pipe()
child = os.fork()
if not child:
    uses = [lambda: client.get("a/b"), lambda: client.follow("a/b"), lambda: client.get_task("a/b"),
            lambda: next(follow), lambda: next(log.entries()), lambda: list(listed),
            client.server_info, client.connect, SyncTaskLogsClient(sys.argv[1]).connect]
    for use in uses:
        try:
            print("no error", use())
        except RuntimeError as error:
            print(error)
    follow.close()
    client.close()
    client.close()
    del follow
    sys.exit()
status = os.waitpid(child, 0)[1]
print(status, client.get_task("a/b").name)
client.close()
"""


def test_a_client_that_a_fork_inherits_says_so_at_once(server: ThreadedLogServer) -> None:
    server.server.streams = [[status("c0", ACTIVE), HOLD]]
    server.server.answers = [page(entry(0, "a", 1)), task("parent")]

    *said, parent = run_program(FORKED, server.address).splitlines()

    assert parent == "0 parent"
    assert len(said) == 9
    assert all(line.startswith("this process was forked after") for line in said)


LEFT_OPEN = """
import sys
from datetime import timedelta
from tasklogs import SyncTaskLogsClient

client = SyncTaskLogsClient(sys.argv[1]).connect()
follow = client.follow("a/b")
next(follow)
try:
    follow.next(timeout=timedelta(milliseconds=10))
except TimeoutError:
    print("ends")
"""


def test_a_program_ends_that_leaves_its_client_open(server: ThreadedLogServer) -> None:
    server.server.streams = [[status("c0", ACTIVE), HOLD]]

    assert run_program(LEFT_OPEN, server.address) == "ends\n"
