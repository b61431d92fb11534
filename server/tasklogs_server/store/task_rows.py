"""Rows of `tasks` and `log_heads` as records, and the columns that queries over tasks select."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from tasklogs.log.entry import NO_NAMES, Names, Time
from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.errors import LogCorrupt
from tasklogs_server.domain.reports import expire_lease
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)
from tasklogs_server.store.records import Evicted, LogHead, TailHead, Task

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    import asyncpg

HEAD_COLUMNS = """
    h.epoch, h.entries, h.revision, h.bytes, h.digest, h.snapshot_at, h.tail_id, h.tail_type,
    h.tail_seconds, h.tail_nanos, h.tail_revision, h.tail_dropped, h.tail_part_bytes,
    h.total_rows, h.evicted_revision, h.evicted_epoch, h.evicted_ordinal, h.evicted_rows,
    h.evicted_bytes, h.tail_names, h.generation, h.lost_after"""


def lost_ordinal(epoch: str) -> str:
    """Return SQL for the ordinal up to which all entries of `epoch` are evicted; `h` is the head.

    Evicted rows stay in the indexes until a vacuum, which may be hours away. A scan from the oldest
    entry on without this bound visits each of them.
    """
    return f"""CASE WHEN {epoch} > h.evicted_epoch THEN -1
                WHEN {epoch} = h.evicted_epoch THEN h.evicted_ordinal
                ELSE 2147483647 END"""


# How conditions name the task of a statement about one task, whose id is $4. Such a statement has a
# text for ids and a text for names. In the text for ids each table has `task_id = $4`, so that
# Citus knows its server. The text for names finds the id in `task_names`: see `task_names.py`.
TASK = {False: "$4::uuid", True: "t.task_id"}
"""By whether the task is named by its name."""


def which_task(task: str, owner: str, name: str) -> str:
    """Return the condition on `t`; `task` is one of TASK, `owner` may be NULL."""
    named = f"(SELECT n.task_id FROM task_names n WHERE n.owner = {owner} AND n.name = {name})"
    id_ = task if task == TASK[False] else f"coalesce($4::uuid, {named})"
    return f"t.task_id = {id_} AND t.owner = coalesce({owner}, t.owner) AND t.deleted_at IS NULL"


FACT_COLUMNS = """
    t.build_number, t.transition, t.job_status, t.lifecycle, t.health"""

# Parameters $1 to $3 are LeaseTerms: the id of this process, the time since which some server has
# been up, and the lease. A process holds its sessions while it sends heartbeats. This process needs
# no heartbeat to hold its own. The lease of a standalone task runs from the loss of its session, or
# from the last heartbeat of the process that held it. If servers were down meanwhile, it runs from
# the first start of a server after that: time without any server does not count. now() is the same
# in a whole transaction: a list that is filtered by status returns the tasks with that status.
HEARTBEAT = "(SELECT p.heartbeat_at FROM processes p WHERE p.process_id = t.session_process)"

# The row of an old process may be deleted. Without coalesce the result would then be NULL: neither
# connected nor over.
AGENT_CONNECTED = f"""
    t.session_process IS NOT NULL AND t.session_lost_at IS NULL
    AND (t.session_process = $1
         OR coalesce({HEARTBEAT} > now() - interval '15 s', false))"""

LEASE_OVER = f"""
    t.standalone AND t.transition = 'START' AND NOT ({AGENT_CONNECTED})
    AND greatest(coalesce(t.session_lost_at, {HEARTBEAT}, t.created_at), $2::timestamptz)
        + $3::interval < now()"""

SESSION_COLUMNS = f"""
    ({AGENT_CONNECTED}) AS agent_connected, ({LEASE_OVER}) AS lease_over"""

# The process whose session the rows name.
SESSION_PROCESS = "CASE WHEN t.session_lost_at IS NULL THEN t.session_process END"

# What reads of logs need. Labels have up to 70 KB, prompts 64 KiB.
TASK_COLUMNS = f"""
    t.task_id, t.owner, t.name, t.display_name, t.standalone, t.created_at,
    {FACT_COLUMNS}, {SESSION_COLUMNS}, {SESSION_PROCESS} AS session_process, h.fence,
    {HEAD_COLUMNS}"""

VIEW_COLUMNS = {
    TaskView.BASIC: f"{TASK_COLUMNS}, t.labels",
    TaskView.FULL: f"{TASK_COLUMNS}, t.labels, t.prompt",
}

TASK_TABLES = "tasks t JOIN log_heads h ON h.task_id = t.task_id"


class LeaseTerms(NamedTuple):
    """What the leases of standalone tasks depend on. Times are of the database's clock."""

    process_id: UUID
    up_since: datetime
    lease: timedelta


def facts_of(row: asyncpg.Record) -> Facts:
    """Return the facts as they were reported."""
    transition, job_status = row["transition"], row["job_status"]
    lifecycle, health = row["lifecycle"], row["health"]
    return Facts(
        build_number=row["build_number"],
        transition=None if transition is None else BuildTransition(transition),
        job_status=None if job_status is None else JobStatus(job_status),
        lifecycle=None if lifecycle is None else AgentLifecycle(lifecycle),
        health=None if health is None else AppHealth(health),
    )


def head_of(row: asyncpg.Record) -> LogHead:
    """Return the head of the log."""
    return LogHead(
        epoch=row["epoch"],
        entries=row["entries"],
        revision=row["revision"],
        digest=row["digest"],
        bytes=row["bytes"],
        snapshot_at=row["snapshot_at"],
        tail=tail_of(row),
        rows=row["total_rows"],
        evicted=evicted_of(row),
        generation=row["generation"],
        lost_after=tuple(row["lost_after"]),
    )


def evicted_of(row: asyncpg.Record) -> Evicted:
    """Return what was evicted from the log."""
    return Evicted(
        revision=row["evicted_revision"],
        epoch=row["evicted_epoch"],
        ordinal=row["evicted_ordinal"],
        rows=row["evicted_rows"],
        bytes=row["evicted_bytes"],
    )


def tail_of(row: asyncpg.Record) -> TailHead | None:
    """Return the tail without its content; None if every entry is sealed."""
    if row["tail_id"] is None:
        return None
    return TailHead(
        id=row["tail_id"],
        type=row["tail_type"],
        time=Time(row["tail_seconds"], row["tail_nanos"]),
        revision=row["tail_revision"],
        dropped_bytes=row["tail_dropped"],
        part_bytes=row["tail_part_bytes"],
        names=_names_of(row["tail_names"]),
    )


def _names_of(stored: list[bytes] | None) -> Names:
    if stored is None:
        return NO_NAMES
    try:
        source_id, name, call_id = stored
        return Names(source_id.decode(), name.decode(), call_id.decode())
    except (AttributeError, ValueError) as error:
        raise LogCorrupt from error


def task_of(row: asyncpg.Record) -> Task:
    """Return a task, with the labels and the prompt if they were selected.

    A standalone task whose lease is over has lifecycle OFF.
    """
    prompt, labels = row.get("prompt"), row.get("labels")
    facts = facts_of(row)
    if row["lease_over"]:
        facts = expire_lease(facts)
    return Task(
        task_id=row["task_id"],
        owner=row["owner"],
        name=row["name"],
        display_name=row["display_name"],
        prompt=None if prompt is None else prompt.decode(),
        labels=None if labels is None else json.loads(labels),
        standalone=row["standalone"],
        created_at=row["created_at"],
        facts=facts,
        agent_connected=bool(row["agent_connected"]),
        fence=row["fence"],
        head=head_of(row),
        session_process=row["session_process"],
    )
