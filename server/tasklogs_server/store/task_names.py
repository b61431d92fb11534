"""Which task has a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef

if TYPE_CHECKING:
    from uuid import UUID

    from tasklogs_server.store.connections import Connection

_RESOLVE = "SELECT task_id FROM task_names WHERE owner = $1 AND name = $2"


async def id_of(connection: Connection, ref: TaskRef) -> TaskId:
    """Return the id of the task, and its owner if `ref` has one.

    Where names are on another server than their tasks, a statement that finds a task by its name
    is refused, and this goes before it. Raises TaskNotFound. An id is not looked up.
    """
    if isinstance(ref, TaskId):
        return ref
    task_id: UUID | None = await connection.fetchval(_RESOLVE, ref.owner, ref.name)
    if task_id is None:
        raise TaskNotFound(str(ref))
    return TaskId(task_id, ref.owner)
