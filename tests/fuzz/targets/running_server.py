"""A complete server whose time stands still between calls."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
from structlog.testing import capture_logs

from tasklogs_server import app
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store.migrate import migrate
from tests.support.fixtures.postgres import FAST, PostgresServer

T = TypeVar("T")

# A call that waits for an agent or a task app waits in vain here.
_SHORT = {"agent_wait": 0.02, "sync_timeout": 0.05, "store_wait": 5}
_OFTEN = {"epochs_per_hour": 1_000_000, "agent_connects_at_once": 1_000_000}
_QUIET = ("debug", "info")


class RunningServer:
    """An embedded Postgres with a server, on a loop that only runs while something is awaited."""

    def __init__(self) -> None:
        # If this process is root, Postgres runs as another user and needs access to the directory.
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)
        Path(self._directory.name).chmod(0o755)
        self._postgres = PostgresServer(Path(self._directory.name) / "pg", FAST)
        self._postgres.start()
        self._postgres.run(migrate(self._postgres.dsn()))
        self._unhandled: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self._unhandled.append(context))
        self._ready: asyncio.Future[grpc.aio.Channel] = self._loop.create_future()
        self._stop = asyncio.Event()
        self._serving = self._loop.create_task(self._serve())
        self._serving.add_done_callback(self._note_the_end)
        self.channel = self._loop.run_until_complete(self._ready)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` while the server runs. Raises AssertionError if the log shows a fault."""
        with capture_logs() as logged:
            result = self._loop.run_until_complete(work)
        faults: Sequence[MutableMapping[str, Any]] = [
            one
            for one in logged
            if one["log_level"] not in _QUIET and one["event"] != "agent_message.refused"
        ]
        assert not faults, faults
        unhandled, self._unhandled = self._unhandled, []
        assert not unhandled, unhandled
        return result

    def close(self) -> None:
        self._stop.set()
        self._loop.run_until_complete(self._serving)
        self._loop.close()
        with self._postgres:  # stops it and its thread
            pass
        self._directory.cleanup()

    def _note_the_end(self, serving: asyncio.Task[None]) -> None:
        if not self._ready.done():
            self._ready.set_exception(serving.exception() or RuntimeError("it never served"))

    async def _serve(self) -> None:
        settings = ServerSettings.model_validate(
            {"listen": "127.0.0.1:0", "channelz": True, **_SHORT, **_OFTEN}
        )
        async with (
            app.run(settings, self._postgres.dsn()) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            self._ready.set_result(channel)
            await self._stop.wait()
