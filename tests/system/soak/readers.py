"""Readers that read logs repeatedly. The result of each call is a record of `reads.jsonl`:

t         the end of the call; `began`: its begin, before anything was sent
number    of the reader; task, source ("" unset, "live", "snapshot"), tail (null: all)
code      "OK" or the gRPC code; then reason (of ErrorInfo), retry (seconds of RetryInfo), message
snapshot, epoch, revision, status, entries: [[id, revision, mark], ...]
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import TaskLogsRpcError
from tests.system.soak.contents import mark
from tests.system.soak.journal import Journal

READ_SECONDS = 30.0
_TAIL_ENTRIES = 8
_SOURCES: Sequence[tuple[str, LogSource | None]] = (
    *([("", None)] * 4),
    ("live", LogSource.LIVE),
    ("snapshot", LogSource.SNAPSHOT),
)


class Readers:
    """One reader per task, each with a connection of its own."""

    def __init__(
        self,
        address: str,
        tasks: Sequence[str],
        journal: Journal,
        seed: int,
        pause_seconds: float,
    ) -> None:
        self._address = address
        self._tasks = tasks
        self._journal = journal
        self._seed = seed
        self._pause_seconds = pause_seconds
        self._answered_at = dict.fromkeys(tasks, 0.0)

    @property
    def answered_at(self) -> float:
        """Since when every reader has had an answer that was no refusal."""
        return min(self._answered_at.values())

    async def read_repeatedly(self) -> None:
        async with asyncio.TaskGroup() as readers:
            for number, task in enumerate(self._tasks, 1):
                readers.create_task(self._read_one(number, task), name=f"reader {number}")

    async def _read_one(self, number: int, task: str) -> None:
        chance = random.Random(f"{self._seed} reader {number}")
        async with TaskLogsClient(self._address, timeout=timedelta(seconds=READ_SECONDS)) as client:
            while True:
                await asyncio.sleep(chance.uniform(0.5, 1.5) * self._pause_seconds)
                named, source = chance.choice(_SOURCES)
                tail = None if chance.random() < 0.1 else _TAIL_ENTRIES
                began = time.monotonic()
                result = await _read(client, task, source, tail)
                self._journal.note(
                    began=round(began, 6),
                    number=number,
                    task=task,
                    source=named,
                    tail=tail,
                    **result,
                )
                if result["code"] == "OK":
                    self._answered_at[task] = time.monotonic()
                # As RetryInfo says: a reader that retries at once keeps a server from draining.
                await asyncio.sleep(result.get("retry") or 0.0)


async def _read(
    client: TaskLogsClient, task: str, source: LogSource | None, tail: int | None
) -> dict[str, Any]:
    try:
        log = await client.get(task, source=source, tail=tail)
        entries = await log.all()
    except TaskLogsRpcError as error:
        return {
            "code": error.code.name,
            "reason": error.reason,
            "retry": None if error.retry_after is None else error.retry_after.total_seconds(),
            "message": error.message[:200],
        }
    return {
        "code": "OK",
        "snapshot": log.snapshot,
        "epoch": log.epoch,
        "revision": log.revision,
        "status": log.status.name,
        "entries": [[one.id, one.revision, mark(one.content)] for one in entries],
    }
