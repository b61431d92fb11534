"""Tasks: creation, names, descriptions, facts, tokens, deletion."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg

from tasklogs_server.domain.description import Description, NewTask, TaskView
from tasklogs_server.domain.errors import (
    SessionSuperseded,
    StoreUnavailable,
    TaskNameTaken,
    TaskNotFound,
)
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.domain.status import BuildTransition, Facts, TaskStatus
from tasklogs_server.store import task_lists
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.errors import RETRY_AFTER
from tasklogs_server.store.records import EarlierCreation, Task
from tasklogs_server.store.task_rows import (
    FACT_COLUMNS,
    TASK_TABLES,
    VIEW_COLUMNS,
    LeaseTerms,
    facts_of,
    task_of,
)
from tasklogs_server.store.task_transactions import TaskTransactions

_INSERT_NAME = "INSERT INTO task_names (owner, name, task_id) VALUES ($1, $2, $3)"

_CREATE = """
    INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone, labels,
                       request_id, request_hash, agent_token_hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""

_CREATE_HEAD = "INSERT INTO log_heads (task_id, generation) VALUES ($1, $2)"

_GET = {
    view: f"""
    SELECT {columns}
      FROM {TASK_TABLES}
     WHERE t.task_id = $4 AND t.deleted_at IS NULL"""
    for view, columns in VIEW_COLUMNS.items()
}

# What is in the way of a creation, at one moment: the task that has the request's id, and the task
# that has the name.
_IN_THE_WAY = """
    SELECT t.task_id, t.request_hash, n.task_id AS named
      FROM (SELECT) one
      LEFT JOIN tasks t
        ON t.owner = $1 AND t.request_id = $2::uuid AND t.deleted_at IS NULL
      LEFT JOIN task_names n ON n.owner = $1 AND n.name = $3"""

_RESOLVE = "SELECT task_id FROM task_names WHERE owner = $1 AND name = $2"
_RESOLVE_OWNED = """
    SELECT task_id FROM tasks WHERE task_id = $1 AND owner = $2 AND deleted_at IS NULL"""


_CREATION_ATTEMPTS = 3

_LOCK_DESCRIPTION = """
    SELECT t.display_name, t.labels FROM tasks t
     WHERE t.task_id = $1 AND t.deleted_at IS NULL FOR UPDATE"""

_STORE_DESCRIPTION = "UPDATE tasks SET display_name = $2, labels = $3 WHERE task_id = $1"

_LOCK_FACTS = f"""
    SELECT {FACT_COLUMNS} FROM tasks t
     WHERE t.task_id = $1 AND t.deleted_at IS NULL FOR UPDATE"""

# Each statement that raises the fence locks the task's row first. So this must be a statement of
# its own, after the one that locks the row: a join there could return the fence from before it.
_FENCE = "SELECT fence FROM log_heads WHERE task_id = $1"

_STORE_FACTS = """
    UPDATE tasks SET build_number = $2, transition = $3, job_status = $4, lifecycle = $5,
                     health = $6, start_build = coalesce($7, start_build),
                     changed_at = statement_timestamp()
     WHERE task_id = $1"""

_TOKEN_HASH = "SELECT agent_token_hash FROM tasks WHERE task_id = $1 AND deleted_at IS NULL"

# The fence is raised as well: no stream or upload that the old token opened, in any process, can
# commit after this.
_ROTATE_TOKEN = """
    WITH rotated AS (
        UPDATE tasks SET agent_token_hash = $2
         WHERE task_id = $1 AND deleted_at IS NULL RETURNING task_id
    )
    UPDATE log_heads h SET fence = fence + 1 FROM rotated
     WHERE h.task_id = rotated.task_id RETURNING h.task_id"""

# After this, no session can write (there is no head), no token is valid, and the name is free.
MARK_DELETED = """
    WITH marked AS (
        UPDATE tasks SET deleted_at = statement_timestamp(), agent_token_hash = ''
         WHERE task_id = ANY ($1::uuid[]) AND deleted_at IS NULL RETURNING task_id, owner, name
    ), freed AS (
        DELETE FROM task_names n USING marked
         WHERE n.owner = marked.owner AND n.name = marked.name RETURNING n.task_id
    ), ended AS (
        DELETE FROM log_heads h USING marked WHERE h.task_id = marked.task_id
        RETURNING h.task_id
    )
    SELECT task_id FROM marked"""


class TaskStore:
    """The rows of tasks. Every method raises StoreUnavailable if Postgres cannot be reached."""

    def __init__(
        self, connections: Connections, transactions: TaskTransactions, lease_terms: LeaseTerms
    ) -> None:
        self._connections = connections
        self._transactions = transactions
        self._lease_terms = lease_terms

    async def create(
        self, task_id: UUID, new: NewTask, *, agent_token_hash: bytes
    ) -> Task | EarlierCreation:
        """Create a task with an empty log, and return it whole.

        Return the earlier creation if the owner has a task with this request id. Raises
        TaskNameTaken.
        """
        if self._connections.sharded and new.request_id is not None:
            # There the index of request ids is not unique.
            found = await self._in_the_way(new)
            if found["task_id"] is not None:
                return EarlierCreation(found["task_id"], found["request_hash"])
        for _ in range(_CREATION_ATTEMPTS):
            try:
                return await self._insert(task_id, new, agent_token_hash)
            except asyncpg.UniqueViolationError as error:
                found = await self._in_the_way(new)
                if found["task_id"] is not None:
                    return EarlierCreation(found["task_id"], found["request_hash"])
                if found["named"] is not None:
                    raise TaskNameTaken(new.owner, new.name) from error
            # What was in the way has been deleted meanwhile.
        raise StoreUnavailable(RETRY_AFTER)

    async def _in_the_way(self, new: NewTask) -> asyncpg.Record:
        async with self._connections.use() as connection:
            found = await connection.fetchrow(_IN_THE_WAY, new.owner, new.request_id, new.name)
        assert found is not None
        return found

    async def _insert(self, task_id: UUID, new: NewTask, agent_token_hash: bytes) -> Task:
        async def insert(connection: Connection) -> Task:
            await connection.execute(_INSERT_NAME, new.owner, new.name, task_id)
            await connection.execute(
                _CREATE,
                task_id,
                new.owner,
                new.name,
                new.display_name,
                new.prompt.encode(),
                new.standalone,
                json.dumps(dict(new.labels)),
                new.request_id,
                None if new.request_id is None else new.arguments_hash,
                agent_token_hash,
            )
            await connection.execute(_CREATE_HEAD, task_id, connection.generation)
            return await self._get(connection, task_id, TaskView.FULL)

        # Another transaction may be about to free or to take the name.
        return await self._transactions.run((new.owner, new.name), insert)

    async def resolve(self, ref: TaskRef) -> UUID:
        """Return the id that a reference names. A UUID without an owner is not looked up.

        Raises TaskNotFound.
        """
        if isinstance(ref, TaskId) and ref.owner is None:
            return ref.id
        statement, key = (
            (_RESOLVE_OWNED, (ref.id, ref.owner))
            if isinstance(ref, TaskId)
            else (_RESOLVE, (ref.owner, ref.name))
        )
        async with self._connections.use() as connection:
            task_id: UUID | None = await connection.fetchval(statement, *key)
        if task_id is None:
            raise TaskNotFound(str(ref))
        return task_id

    async def get(self, task_id: UUID, view: TaskView = TaskView.BASIC) -> Task:
        """Read a task. Raises TaskNotFound."""
        async with self._connections.use() as connection:
            return await self._get(connection, task_id, view)

    async def list_(
        self,
        *,
        owner: str | None,
        status: TaskStatus | None = None,
        after: task_lists.ListPosition,
        limit: int,
        labels: Sequence[LabelSelector] = (),
        view: TaskView = TaskView.BASIC,
    ) -> tuple[Sequence[Task], task_lists.ListPosition | None]:
        """Read a page of a list; see task_lists.read_page."""
        async with self._connections.use() as connection:
            return await task_lists.read_page(
                connection,
                self._lease_terms,
                owner=owner,
                status=status,
                after=after,
                limit=limit,
                labels=labels,
                view=view,
                sharded=self._connections.sharded,
            )

    async def update(self, task_id: UUID, change: Callable[[Description], Description]) -> Task:
        """Replace the description by `change(description)`, under the lock of the task's row.

        Return the whole task as this change left it. Raises TaskNotFound, and what `change` raises.
        """

        async def update(connection: Connection) -> Task:
            row = await connection.fetchrow(_LOCK_DESCRIPTION, task_id)
            if row is None:
                raise TaskNotFound(str(task_id))
            current = Description(row["display_name"], json.loads(row["labels"]))
            changed = change(current)
            if changed != current:
                await connection.execute(
                    _STORE_DESCRIPTION,
                    task_id,
                    changed.display_name,
                    json.dumps(dict(changed.labels)),
                )
            return await self._get(connection, task_id, TaskView.FULL)

        return await self._transactions.run(task_id, update)

    async def change_facts(
        self, task_id: UUID, change: Callable[[Facts], Facts], *, fence: int | None = None
    ) -> None:
        """Replace the facts by `change(facts)`, under the lock of the task's row.

        `fence`: of the session that reports. Raises SessionSuperseded if it was raised since,
        TaskNotFound.
        """
        await self._transactions.run(
            task_id, lambda connection: change_facts(connection, task_id, change, fence=fence)
        )

    async def token_hash(self, task_id: UUID) -> bytes | None:
        """Return the hash of the agent's token, or None if there is no such task."""
        async with self._connections.use() as connection:
            hash_: bytes | None = await connection.fetchval(_TOKEN_HASH, task_id)
            return hash_

    async def rotate_token(self, task_id: UUID, agent_token_hash: bytes) -> None:
        """Replace the hash of the agent's token, and raise the fence. Raises TaskNotFound."""

        async def rotate(connection: Connection) -> None:
            if await connection.fetchval(_ROTATE_TOKEN, task_id, agent_token_hash) is None:
                raise TaskNotFound(str(task_id))

        await self._transactions.run(task_id, rotate)

    async def delete(self, task_id: UUID) -> None:
        """Revoke the token, free the name and end the log; a purge deletes the rows later.

        Raises TaskNotFound.
        """
        await self._transactions.run(task_id, lambda connection: _delete(connection, task_id))

    async def _get(self, connection: Connection, task_id: UUID, view: TaskView) -> Task:
        row = await connection.fetchrow(_GET[view], *self._lease_terms, task_id)
        if row is None:
            raise TaskNotFound(str(task_id))
        return task_of(row)


async def _delete(connection: Connection, task_id: UUID) -> None:
    if await connection.fetchval(MARK_DELETED, [task_id]) is None:
        raise TaskNotFound(str(task_id))


async def change_facts(
    connection: Connection,
    task_id: UUID,
    change: Callable[[Facts], Facts],
    *,
    fence: int | None = None,
) -> Facts:
    """Lock the task's row, replace its facts by `change(facts)` and return the new facts.

    Runs in the caller's transaction. Raises TaskNotFound, SessionSuperseded if the fence is not
    `fence`, and what `change` raises.
    """
    row = await connection.fetchrow(_LOCK_FACTS, task_id)
    if row is None:
        raise TaskNotFound(str(task_id))
    if fence is not None and await connection.fetchval(_FENCE, task_id) != fence:
        raise SessionSuperseded
    current = facts_of(row)
    facts = change(current)
    if facts != current:
        started = facts.build_number if facts.transition is BuildTransition.START else None
        await connection.execute(
            _STORE_FACTS,
            task_id,
            facts.build_number,
            facts.transition,
            facts.job_status,
            facts.lifecycle,
            facts.health,
            started,
        )
    return facts
