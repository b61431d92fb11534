"""The directory of tasks: creates, lists and deletes them, and changes their facts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from uuid import UUID

from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import BuildReported, Moved, SessionDoubted
from tasklogs_server.domain.description import DescriptionChange, NewTask, TaskView
from tasklogs_server.domain.errors import (
    FieldViolation,
    InvalidFields,
    TaskNotFound,
    TaskStandalone,
    Unauthenticated,
)
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.names import TaskRef
from tasklogs_server.domain.status import Facts, TaskStatus
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.store.records import Task
from tasklogs_server.store.task_lists import ListPosition
from tasklogs_server.store.tasks import TaskStore
from tasklogs_server.tasks.agent_tokens import new_token
from tasklogs_server.tasks.purge import Purge
from tasklogs_server.telemetry.calls import concerns

_OTHER_ARGUMENTS = "a task was created with this id and other arguments: use a new id"


class TaskDirectory:
    """Changes tasks in the store, and notifies this process's sessions and followers."""

    def __init__(self, tasks: TaskStore, sessions: Sessions, bus: Bus, *, purge: Purge) -> None:
        self._tasks = tasks
        self._bus = bus
        self._sessions = sessions
        self._purge = purge

    async def create(self, new: NewTask) -> tuple[Task, str]:
        """Create a task. Return it and its agent's token.

        If the owner has a task with this request id, return that task and a fresh token, and end
        the stream that the earlier token opened. Raises TaskNameTaken, and InvalidFields if that
        task was created with other arguments.
        """
        while True:
            task_id = uuid.uuid4()
            token, token_hash = new_token(task_id)
            made = await self._tasks.create(task_id, new, agent_token_hash=token_hash)
            if isinstance(made, Task):
                concerns(task_id)
                return made, token
            concerns(made.task_id)
            if made.request_hash != new.arguments_hash:
                raise InvalidFields([FieldViolation("request_id", _OTHER_ARGUMENTS)])
            try:
                token = await self._rotate_agent_token(made.task_id)
                return await self._tasks.get(made.task_id, TaskView.FULL), token
            except TaskNotFound:
                pass  # the earlier task was deleted meanwhile: its request id is free

    async def get(self, ref: TaskRef, view: TaskView) -> Task:
        """Read a task. Raises TaskNotFound."""
        return await self._tasks.get(await self._resolve(ref), view)

    async def list_(
        self,
        *,
        owner: str | None,
        status: TaskStatus | None,
        after: ListPosition,
        limit: int,
        labels: Sequence[LabelSelector] = (),
        view: TaskView = TaskView.BASIC,
    ) -> tuple[Sequence[Task], ListPosition | None]:
        """Read a page of a list; see task_lists.read_page."""
        return await self._tasks.list_(
            owner=owner, status=status, after=after, limit=limit, labels=labels, view=view
        )

    async def update(self, ref: TaskRef, change: DescriptionChange) -> Task:
        """Change a task's description. Return the whole task.

        Raises TaskNotFound and EtagMismatch.
        """
        return await self._tasks.update(await self._resolve(ref), change.apply)

    async def report(self, ref: TaskRef, change: Callable[[Facts], Facts]) -> Task:
        """Change a task's facts.

        Raises TaskNotFound, TaskStandalone, and what `change` raises.
        """
        task_id = await self._resolve(ref)
        if (await self._tasks.get(task_id)).standalone:
            raise TaskStandalone
        await self._tasks.change_facts(task_id, change)
        self._bus.publish(Moved(task_id))
        return await self._tasks.get(task_id)

    async def report_build(self, ref: TaskRef, change: Callable[[Facts], Facts]) -> Task:
        """Do as `report` does, and ask the agent for its state if it is connected."""
        task = await self.report(ref, change)
        self._sessions.build_reported(task.task_id, task.facts)
        self._bus.publish(BuildReported(task.task_id))
        return task

    async def rotate_agent_token(self, ref: TaskRef) -> str:
        """Replace the agent's token, and end the stream that the old token opened.

        Return the new token. Raises TaskNotFound.
        """
        return await self._rotate_agent_token(await self._resolve(ref))

    async def _rotate_agent_token(self, task_id: UUID) -> str:
        token, token_hash = new_token(task_id)
        # The rotation raises the fence. A commit of the old stream may fail before the rotation
        # returns. In this case, too, the stream must end with the reason that is given here.
        with self._sessions.ending(task_id, Unauthenticated("the agent token was rotated")):
            await self._tasks.rotate_token(task_id, token_hash)
        self._bus.publish(SessionDoubted(task_id))
        return token

    async def delete(self, ref: TaskRef) -> None:
        """Delete a task. Its name is free and its token invalid at once.

        Its rows are deleted later. Raises TaskNotFound.
        """
        task_id = await self._resolve(ref)
        await self._tasks.delete(task_id)
        self._purge.deleted(task_id)

    async def _resolve(self, ref: TaskRef) -> UUID:
        task_id = await self._tasks.resolve(ref)
        concerns(task_id)
        return task_id
