"""Large changes of sessions. They leave the group commit: a commit of 1 MB takes long.

The commits of all other tasks would wait until it is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tasklogs_server.ingest.batches import Batches, Writer, lose
from tasklogs_server.store.log_writes import Lane
from tasklogs_server.store.records import Commit

LARGE_BYTES = 256 * 1024
"""A change with more content and text than this is large."""

_log = structlog.get_logger(__name__)


class LargeChanges:
    """Writes large changes, one at a time, on a connection of their own.

    Writers take turns: a writer that has more to commit waits behind the others. It is asked for
    its commit when its turn comes, so what it changes meanwhile coalesces. `on_held` is called with
    a commit whose rows another transaction holds, `on_settled` with each writer after its turn.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        on_held: Callable[[Writer, Commit], None],
        on_settled: Callable[[Writer], None],
    ) -> None:
        self._batches = batches
        self._on_held = on_held
        self._on_settled = on_settled
        self._waiting: dict[Writer, Commit | None] = {}
        """In the order of their turns. A commit that turned out to be large is already made."""
        self._writing: Writer | None = None
        self._wake = asyncio.Event()

    def has(self, writer: Writer) -> bool:
        """Whether the writer waits for its turn, or has it."""
        return writer is self._writing or writer in self._waiting

    def add(self, writer: Writer, commit: Commit | None = None) -> None:
        """Give the writer a turn. `commit`: the one to write; None: ask the writer for it then."""
        self._waiting[writer] = commit
        self._wake.set()

    def withdraw(self, writer: Writer) -> None:
        """Do not ask the writer. It still gets the outcome of a commit that is made."""
        if writer in self._waiting and self._waiting[writer] is None:
            del self._waiting[writer]

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            if not self._waiting:
                self._wake.clear()
                continue
            # A method of its own: the last writer must not be held until the next one comes.
            await self._write_next()

    async def _write_next(self) -> None:
        writer = next(iter(self._waiting))
        commit = self._waiting.pop(writer)
        self._writing = writer
        try:
            if commit is None:
                commit = next_commit_of(writer)
            if commit is not None:
                await self._write(writer, commit)
        finally:
            self._writing = None
        self._on_settled(writer)

    async def _write(self, writer: Writer, commit: Commit) -> None:
        # A commit that is alone is never postponed: its rows are held.
        for _, held, _ in await self._batches.write([(writer, commit)], Lane.LARGE):
            self._on_held(writer, held)


def next_commit_of(writer: Writer) -> Commit | None:
    """Ask the writer. If it raises, only this writer fails: the other commits go on."""
    try:
        return writer.next_commit()
    except Exception as error:
        _log.exception("writer.failed")
        lose(writer, error)
        return None
