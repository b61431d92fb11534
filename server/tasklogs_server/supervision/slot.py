"""The place of one worker: it is started, and started again whenever it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.worker_process import WorkerProcess

# A worker that served for so long is replaced at once.
_GOOD_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0

_log = structlog.get_logger(__name__)


class Slot:
    """Keeps one worker running. `worker`: its number, from 1."""

    def __init__(self, worker: int, settings: ServerSettings) -> None:
        self.worker = worker
        self._settings = settings
        self._process: WorkerProcess | None = None
        self._ending = asyncio.Event()
        self._has_served = False
        self._serves_since: float | None = None
        self._pause_seconds = 0.0
        self.restarts = 0
        """How often a worker that had ended by itself was replaced."""

    @property
    def process(self) -> WorkerProcess | None:
        """The worker that serves now; None: it is being replaced."""
        process = self._process
        return process if process is not None and process.serves.is_set() else None

    async def run(self, served: asyncio.Event) -> None:
        """Work until asked to end. `served` is set when the first worker here takes calls.

        Raises StartupError if that first one does not start: then another one would not either.
        """
        while not self._ending.is_set():
            if self.restarts:
                await self._pause()
                if self._ending.is_set():
                    return
            self._serves_since = None
            how = await self._run_one(served)
            if self._ending.is_set():
                return
            if not self._has_served:
                raise StartupError(how)
            if self._was_good():
                self._pause_seconds = 0.0
            self.restarts += 1

    def end(self) -> None:
        """Let the worker drain, and start no other one."""
        self._ending.set()
        if self._process is not None:
            self._process.ask_to_end()

    def kill(self) -> None:
        """End the worker at once, without a drain."""
        if self._process is not None:
            self._process.kill()

    async def _run_one(self, served: asyncio.Event) -> str:
        """Run one worker to its end; return why it ended."""
        try:
            process = await WorkerProcess.start(self.worker, self._settings)
        except OSError as error:  # no memory, too many processes, or the interpreter is gone
            return self._ended(None, f"it cannot be started: {error.strerror}")
        self._process = process
        if self._ending.is_set():  # meanwhile
            process.ask_to_end()
        announcing = asyncio.create_task(self._announce(process, served), name="worker serves")
        try:
            how = await process.run()
        finally:
            self._process = None
            announcing.cancel()
            await asyncio.wait({announcing})
        if process.refusal is not None and not self._has_served:
            return process.refusal
        if process.is_asked_to_end and how != "exit status 0":
            _log.warning("worker.aborted", worker=self.worker, pid=process.pid, how=how)
        return self._ended(process.pid, process.refusal or how)

    def _ended(self, pid: int | None, how: str) -> str:
        if not self._has_served:
            return f"worker {self.worker} did not start: {how}"
        if not self._ending.is_set():
            _log.warning("worker.ended", worker=self.worker, pid=pid, how=how)
        return how

    def _was_good(self) -> bool:
        """Whether the worker that has just ended served for long."""
        since = self._serves_since
        return since is not None and asyncio.get_running_loop().time() - since >= _GOOD_SECONDS

    async def _announce(self, process: WorkerProcess, served: asyncio.Event) -> None:
        await process.serves.wait()
        self._has_served = True
        self._serves_since = asyncio.get_running_loop().time()
        _log.info("worker.started", worker=self.worker, pid=process.pid)
        served.set()

    async def _pause(self) -> None:
        """Wait before the next start: not after the first end, then longer each time."""
        pause = self._pause_seconds
        self._pause_seconds = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(spread(pause / 2, pause).total_seconds()):
                await self._ending.wait()
