"""One worker, as its supervisor sees it: started, watched, asked to end, killed."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Self

from tasklogs_server.concurrency.stall_free_clock import StallFreeClock
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.channel import Channel, Message
from tasklogs_server.supervision.link import END_SECONDS

# -P: no module of the working directory takes the place of an installed one.
_PROGRAM = ("-P", "-m", "tasklogs_server.worker")
# Until it serves, a worker loads its program and libraries: some seconds of CPU, in which its event
# loop stands still. The machine may be busy.
_START_SECONDS = 60.0


class WorkerProcess:
    """A process of one worker, from its start to its end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: Channel,
        worker: int,
        settings: ServerSettings,
    ) -> None:
        self._process = process
        self._channel = channel
        self._worker = worker
        self._settings = settings
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._questions = 0
        self._beats = asyncio.Event()
        self._frozen = False
        self.serves = asyncio.Event()
        """Set when the worker takes calls."""
        self.refusal: str | None = None
        """Why it cannot start, in its own words."""
        self.is_asked_to_end = False

    @classmethod
    async def start(cls, worker: int, settings: ServerSettings) -> Self:
        """Start a fresh interpreter and send it the settings. `worker`: its number, from 1."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, *_PROGRAM, str(theirs.fileno()), settings.loop),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # A Ctrl-C at the terminal is for the supervisor, which lets workers drain.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        try:
            channel = await Channel.open(ours)
        except BaseException:  # cancelled: nobody else knows of the process
            ours.close()
            process.kill()
            await process.wait()
            raise
        channel.send({"worker": worker, "settings": settings.model_dump(mode="json")})
        return cls(process, channel, worker, settings)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def run(self) -> str:
        """Watch it until it has ended, and return how. Kills it if it freezes, or if cancelled."""
        watching = [
            asyncio.create_task(self._listen(), name="worker messages"),
            asyncio.create_task(self._watch_beats(), name="worker beats"),
        ]
        try:
            status = await self._process.wait()
            # What it said last.
            await asyncio.wait(watching[:1], timeout=1.0)
        finally:
            self.kill()
            for one in watching:
                one.cancel()
            await asyncio.wait(watching)
            self._channel.close()
            await self._process.wait()
            self._forget_questions()
        return self._in_words(status)

    def ask_to_end(self) -> None:
        """Let it drain. It is killed if that takes too long."""
        if not self.is_asked_to_end:
            self.is_asked_to_end = True
            self._channel.end()

    def kill(self) -> None:
        """End it at once. Does nothing if it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ask_for_metrics(self) -> Any:
        """Return its metrics. Raises ConnectionError if it has none, or ends before it answers."""
        self._questions += 1
        answer = self._answers[self._questions] = asyncio.get_running_loop().create_future()
        self._channel.send({"ask": self._questions})
        try:
            return await answer
        finally:
            self._answers = {key: one for key, one in self._answers.items() if one is not answer}

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        if "serves" in message:
            self.serves.set()
        elif "failed" in message:
            self.refusal = message["failed"]
        elif "answer" in message:
            answer = self._answers.get(message["answer"])
            if answer is not None and not answer.done():
                if message["families"] is None:
                    answer.set_exception(ConnectionError("the worker has no metrics"))
                else:
                    answer.set_result(message["families"])
        self._beats.set()

    async def _watch_beats(self) -> None:
        """Kill it when it is silent, or does not end in time. A stall of this process is no time.

        By the wall clock, a supervisor that was frozen itself would kill all its workers.
        """
        within = self._settings.worker_timeout.total_seconds()
        clock = StallFreeClock(within)
        heard_at = clock.begin_at
        asked_at: float | None = None
        while True:
            now = await clock.next_look()
            if self._beats.is_set():
                self._beats.clear()
                heard_at = clock.begin_at
            if now - heard_at >= (within if self.serves.is_set() else _START_SECONDS):
                self._frozen = True
                break
            if self.is_asked_to_end:
                asked_at = asked_at or clock.begin_at
                drain = self._settings.drain_timeout.total_seconds()
                if now - asked_at >= drain + END_SECONDS:
                    break
        self.kill()

    def _forget_questions(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the worker has ended"))

    def _in_words(self, status: int) -> str:
        if self._frozen:
            return "its event loop stood still, and it was killed"
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
