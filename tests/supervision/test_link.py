from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

from structlog.testing import capture_logs

from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.channel import Channel, Message
from tasklogs_server.supervision.link import SupervisorLink

SETTINGS = ServerSettings.model_validate(
    {"workers": 3, "drain_timeout": 0, "database_url": "postgresql://a:secret@b/c"}
)
ORDER = {"worker": 2, "settings": SETTINGS.model_dump(mode="json")}

HANGS = """
import asyncio, socket, sys, time
from tasklogs_server.supervision import link
link.END_SECONDS = 0.0

async def work():
    end = socket.socket(fileno=int(sys.argv[1]))
    watched = end.dup()
    opened = await link.SupervisorLink.open(end)
    link.end_without(watched, opened.settings)
    print("hangs", flush=True)
    time.sleep(600)

asyncio.run(work())
"""


async def _next(channel: Channel, key: str) -> Message:
    while (message := await channel.receive()) is not None:
        if key in message:
            return message
    raise AssertionError("the worker has ended")


async def test_a_worker_beats_answers_and_stops_when_its_supervisor_sends_no_more() -> None:
    ours, theirs = socket.socketpair()
    supervisor = await Channel.open(ours)
    supervisor.send(ORDER)
    link = await SupervisorLink.open(theirs)
    assert link is not None
    assert (link.worker, link.settings) == (2, SETTINGS)
    link.collect = lambda: ["metrics"]
    stopped = asyncio.Event()
    running = asyncio.create_task(link.run(stopped.set))
    async with asyncio.timeout(60):
        await _next(supervisor, "beat")
        link.serves()
        await _next(supervisor, "serves")
        supervisor.send({"ask": 5})
        assert await _next(supervisor, "answer") == {"answer": 5, "families": ["metrics"]}
        supervisor.end()
        await stopped.wait()
        await _next(supervisor, "beat")  # also while it drains
    running.cancel()
    await asyncio.wait({running})
    supervisor.close()
    link.close()


async def test_metrics_that_cannot_be_collected_do_not_end_the_worker() -> None:
    ours, theirs = socket.socketpair()
    supervisor = await Channel.open(ours)
    supervisor.send(ORDER)
    link = await SupervisorLink.open(theirs)
    assert link is not None
    sizes: dict[str, int] = {}
    link.collect = lambda: [sizes["none"]]
    running = asyncio.create_task(link.run(lambda: None))
    with capture_logs() as logged:
        async with asyncio.timeout(60):
            supervisor.send({"ask": 1})
            assert await _next(supervisor, "answer") == {"answer": 1, "families": None}
            link.collect = lambda: ["metrics"]
            supervisor.send({"ask": 2})
            assert await _next(supervisor, "answer") == {"answer": 2, "families": ["metrics"]}
    assert [one["event"] for one in logged] == ["worker.metrics_failed"]
    running.cancel()
    await asyncio.wait({running})
    supervisor.close()
    link.close()


async def test_without_a_first_message_a_worker_does_not_start() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    assert await SupervisorLink.open(theirs) is None


def test_a_worker_whose_event_loop_hangs_ends_without_its_supervisor() -> None:
    ours, theirs = socket.socketpair()
    command = (sys.executable, "-c", HANGS, str(theirs.fileno()))
    with (
        theirs,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as worker,
    ):
        try:
            ours.sendall(json.dumps(ORDER).encode() + b"\n")
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"hangs\n"
            ours.close()
            theirs.close()
            assert worker.wait(60) == 1
        finally:
            worker.kill()
