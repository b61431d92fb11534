"""Commits of tasks whose rows another transaction holds. No other task's commit waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.ingest.batches import Batches, Writer, lose
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.log_writes import Lane, Outcome
from tasklogs_server.store.records import Commit

# Handshakes, evictions and folds of the task itself hold its head for a few milliseconds.
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.5
_LOGGED_AFTER_SECONDS = 1.0
# After this time the agent is told. It has the conversation, and connects again.
_GIVEN_UP_AFTER_SECONDS = 60.0
# Other sessions may wait for the bytes of held ones up to about half a second.
_KEPT_SECONDS = 0.2
_RETRY_AFTER = timedelta(seconds=5)
_BATCH_BYTES = 8 * 1024 * 1024
# Each waits for a lock. Commits that were held only now must not wait for all of them.
_ALONE_AT_ONCE = 8

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """The first commit of a task, by the event loop's clock in seconds, and those behind it."""

    writer: Writer
    commit: Commit
    since: float
    again_at: float
    pause_seconds: float = _FIRST_PAUSE_SECONDS
    waits_alone: bool = False
    """Whether a row is held that the commit must wait for. A held head is seen without waiting."""
    is_logged: bool = False
    behind: deque[tuple[Writer, Commit]] = field(default_factory=deque)


class HeldCommits:
    """Tries held commits again, less and less often, on a connection of their own.

    Two commits of one task keep their order. `on_settled` is called with each writer whose commit
    is settled. While sessions wait for `budget`, commits that were held for 0.2 s are given up, the
    longest held first, because their sessions may hold what the others wait for.
    """

    def __init__(
        self,
        batches: Batches,
        budget: IngestBudget | None,
        *,
        on_settled: Callable[[Writer], None],
    ) -> None:
        self._batches = batches
        self._budget = budget
        self._on_settled = on_settled
        self._held: dict[UUID, _Held] = {}
        self._writers: set[Writer] = set()
        self._wake = asyncio.Event()
        if budget is not None:
            budget.on_shortage(self._wake.set)

    @property
    def tasks(self) -> int:
        """How many tasks have a held commit."""
        return len(self._held)

    def holds(self, task_id: UUID) -> bool:
        """Whether a commit of this task is held."""
        return task_id in self._held

    def has(self, writer: Writer) -> bool:
        """Whether the writer's current commit is held."""
        return writer in self._writers

    def add(self, writer: Writer, commit: Commit) -> None:
        """Hold a commit, behind those of the same task."""
        self._writers.add(writer)
        held = self._held.get(commit.task_id)
        if held is not None:
            held.behind.append((writer, commit))
            return
        now = _now()
        self._held[commit.task_id] = _Held(writer, commit, now, now + _FIRST_PAUSE_SECONDS)
        self._wake.set()

    async def run(self) -> None:
        """Try again until cancelled."""
        while True:
            await self._wait()
            try:
                await self._give_up()
                await self._try_due()
            except Exception:
                _log.exception("commit.failed", tasks=len(self._held))
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)

    async def _wait(self) -> None:
        self._wake.clear()
        at = min((one.again_at for one in self._held.values()), default=None)
        if at is not None and self._is_short:
            at = min(at, _now() + _KEPT_SECONDS / 4)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._wake.wait()

    @property
    def _is_short(self) -> bool:
        return self._budget is not None and self._budget.is_short

    async def _give_up(self) -> None:
        now = _now()
        for held in sorted(self._held.values(), key=lambda one: one.since):
            held_seconds = now - held.since
            if held_seconds >= _LOGGED_AFTER_SECONDS and not held.is_logged:
                held.is_logged = True
                _log.warning("commit.delayed", task=str(held.commit.task_id))
            is_in_the_way = self._is_short and held_seconds >= _KEPT_SECONDS
            if is_in_the_way or held_seconds >= _GIVEN_UP_AFTER_SECONDS:
                _log.warning(
                    "commit.abandoned",
                    task=str(held.commit.task_id),
                    held_seconds=round(held_seconds, 1),
                )
                self._forget(held)
                # Nothing of it was stored: a commit that was tried and held was rolled back.
                lose(held.writer, StoreUnavailable(_RETRY_AFTER))
                await asyncio.sleep(0)  # an upload releases its bytes when it wakes up

    async def _try_due(self) -> None:
        now = _now()
        due = [one for one in self._held.values() if one.again_at <= now]
        if not due:
            return
        due.sort(key=lambda one: one.again_at)
        # So that the content of a commit is not sent to Postgres for nothing.
        locked = await self._batches.locked_heads([one.commit.task_id for one in due])
        together: list[_Held] = []
        alone: list[_Held] = []
        size_bytes = 0
        for one in due:
            if one.commit.task_id in locked:
                _put_off(one)
            elif one.waits_alone:
                alone.append(one)
            elif size_bytes < _BATCH_BYTES:
                together.append(one)
                size_bytes += one.commit.size_bytes
        if together:
            await self._try(together)
        for one in alone[:_ALONE_AT_ONCE]:
            await self._try([one])

    async def _try(self, batch: Sequence[_Held]) -> None:
        again = await self._batches.write([(one.writer, one.commit) for one in batch], Lane.ASIDE)
        outcomes = {commit.task_id: outcome for _, commit, outcome in again}
        for one in batch:
            outcome = outcomes.get(one.commit.task_id)
            if outcome is None:
                self._forget(one)
            elif outcome is Outcome.LOCKED:
                one.waits_alone = True
                _put_off(one)

    def _forget(self, held: _Held) -> None:
        """Go on with the next commit of the task. This one is settled, or given up."""
        self._writers.discard(held.writer)
        del self._held[held.commit.task_id]
        if held.behind:
            writer, commit = held.behind.popleft()
            now = _now()
            self._held[commit.task_id] = _Held(writer, commit, now, now, behind=held.behind)
            self._wake.set()
        self._on_settled(held.writer)


def _put_off(held: _Held) -> None:
    held.again_at = _now() + held.pause_seconds
    held.pause_seconds = min(held.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()
