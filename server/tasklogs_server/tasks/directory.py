"""The directory of tasks: created, reported on, listed and deleted; open sessions are told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Deleted, Moved
from tasklogs_server.domain.errors import (
    StaleReport,
    StoreUnavailable,
    TaskNotFound,
    Unauthenticated,
)
from tasklogs_server.domain.names import TaskRef
from tasklogs_server.domain.status import Facts, TaskStatus, derive
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.records import Task
from tasklogs_server.store.tasks import TaskStore
from tasklogs_server.tasks.agent_tokens import new_token
from tasklogs_server.telemetry.calls import concerns

Place = tuple[datetime, UUID]

_PURGE_EVERY_SECONDS = 30.0

_log = structlog.get_logger(__name__)


class Directory:
    """Tasks, and what has to happen in this process when one changes."""

    def __init__(self, tasks: TaskStore, sessions: Sessions, bus: LocalBus) -> None:
        self._tasks = tasks
        self._bus = bus
        self._sessions = sessions
        self._purge = asyncio.Event()

    async def create(
        self, *, owner: str, name: str, display_name: str, prompt: str, standalone: bool
    ) -> tuple[Task, str]:
        """Create a task; return it with its agent's token. Raises TaskNameTaken."""
        task_id = uuid.uuid4()
        concerns(task_id)
        token, token_hash = new_token(task_id)
        await self._tasks.create(
            task_id,
            owner=owner,
            name=name,
            display_name=display_name,
            prompt=prompt,
            standalone=standalone,
            agent_token_hash=token_hash,
        )
        return await self._tasks.get(task_id), token

    async def get(self, ref: TaskRef) -> Task:
        """Read a task. Raises TaskNotFound."""
        return await self._tasks.get(await self._resolve(ref))

    async def list_(
        self, *, owner: str | None, status: TaskStatus | None, after: Place, limit: int
    ) -> tuple[Sequence[Task], Place | None]:
        """Read up to `limit` tasks, newest first, and the place of the next page, if there is one.

        `status` filters what was read: a page may hold fewer tasks, also none.
        """
        tasks, is_full = await self._tasks.list_(owner=owner, after=after, limit=limit + 1)
        page = tasks[:limit]
        more = is_full or len(tasks) > limit
        place = (page[-1].created_at, page[-1].task_id) if more else None
        if status is not None:
            page = [task for task in page if derive(task.facts).status is status]
        return page, place

    async def report(self, ref: TaskRef, change: Callable[[Facts], Facts]) -> Task:
        """Change a task's facts.

        Raises TaskNotFound, StaleReport for a standalone task, and whatever `change` raises.
        """
        task_id = await self._resolve(ref)
        if (await self._tasks.get(task_id)).standalone:
            raise StaleReport("the task is standalone: its facts come from its agent alone")
        await self._tasks.change_facts(task_id, change)
        self._bus.publish(Moved(task_id))
        return await self._tasks.get(task_id)

    async def report_build(self, ref: TaskRef, change: Callable[[Facts], Facts]) -> Task:
        """Like `report`; the agent, if it is connected, is asked for its state."""
        task = await self.report(ref, change)
        self._sessions.build_reported(task.task_id, task.facts)
        return task

    async def rotate_agent_token(self, ref: TaskRef) -> str:
        """Replace the agent's token; the stream that the old one opened ends.

        Raises TaskNotFound.
        """
        task_id = await self._resolve(ref)
        token, token_hash = new_token(task_id)
        # The rotation raises the fence: a commit that is under way may find out before it is over.
        with self._sessions.ending(task_id, Unauthenticated("the agent token was rotated")):
            await self._tasks.rotate_token(task_id, token_hash)
        return token

    async def delete(self, ref: TaskRef) -> None:
        """Delete a task for good: name and token end now, rows go in chunks.

        Raises TaskNotFound.
        """
        task_id = await self._resolve(ref)
        await self._tasks.delete(task_id)
        self._deleted(task_id)

    async def retire_paused(self, age: timedelta, *, limit: int = 20) -> int:
        """Delete tasks that have been paused for longer than `age`, as `delete` does.

        At most `limit` of them; returns how many. Raises StoreUnavailable.
        """
        retired = 0
        for task_id in await self._tasks.to_retire(age, limit=limit):
            if await self._retire(task_id, age):
                _log.info("task.retired", task=str(task_id))
                self._deleted(task_id)
                retired += 1
        return retired

    async def _retire(self, task_id: UUID, age: timedelta) -> bool:
        try:
            return await self._tasks.retire(task_id, age, is_paused=_is_paused)
        except Exception as error:  # of one task's rows: the others are retired
            if not concerns_one_task(error):
                raise
            _log.error("task.not_retired", task=str(task_id), error=type(error).__name__)
            return False

    def _deleted(self, task_id: UUID) -> None:
        self._tell_of_deletion(task_id)
        self._purge.set()

    def _tell_of_deletion(self, task_id: UUID) -> None:
        self._sessions.end(task_id, TaskNotFound(str(task_id)))
        self._bus.publish(Deleted(task_id))

    async def purge_deleted(self) -> None:
        """Delete the rows of deleted tasks, chunk by chunk, until cancelled.

        Also those that a server which died had begun with.
        """
        while True:
            self._purge.clear()
            try:
                for task_id in await self._tasks.deleted():
                    # Whoever deleted it may not have lived, or stayed, to hear that it is done.
                    self._tell_of_deletion(task_id)
                    await self._purge_rows(task_id)
            except StoreUnavailable:
                _log.info("purge.store_unavailable")
            except Exception:
                _log.exception("purge.failed")
            try:
                async with asyncio.timeout(_PURGE_EVERY_SECONDS):
                    await self._purge.wait()
            except TimeoutError:
                pass

    async def _resolve(self, ref: TaskRef) -> UUID:
        task_id = await self._tasks.resolve(ref)
        concerns(task_id)
        return task_id

    async def _purge_rows(self, task_id: UUID) -> None:
        try:
            while not await self._tasks.purge(task_id):
                pass  # each chunk is its own transaction, and others get their turn between two
        except Exception as error:  # of one task's rows: the others' go
            if not concerns_one_task(error):
                raise
            _log.error("purge.failed", task=str(task_id), error=type(error).__name__)


def _is_paused(facts: Facts) -> bool:
    return derive(facts).status is TaskStatus.PAUSED
