"""Lists of tasks: a filtered list is the whole list, filtered."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    TaskStatus,
    derive,
)
from tasklogs_server.store import Store, status_sql, task_lists
from tasklogs_server.store.records import Task
from tasklogs_server.store.task_lists import NEWEST, ListPosition
from tests.store.logs import Connection

OWNERS = ("local", "other")
SELECTORS = (LabelSelector("env", None), LabelSelector("env", "prod"), LabelSelector("team", "a"))
# This process, one with a heartbeat, one without, and one that the store does not know.
THIS, ALIVE, DEAD, FORGOTTEN = (UUID(int=number) for number in range(4))
# Seconds before now. No value is near the lease: the clock goes on during a test.
AGES = (0, 10_000, 100_000)
LEASE = timedelta(hours=1)


FactValues = tuple[
    BuildTransition | None, JobStatus | None, AgentLifecycle | None, AppHealth | None
]


@dataclass(frozen=True)
class Row:
    """A task. Times are seconds before now."""

    owner: str = "local"
    facts: FactValues = (None, None, None, None)
    standalone: bool = False
    process: UUID | None = None
    lost: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    age: int = 0


any_facts: st.SearchStrategy[FactValues] = st.tuples(
    st.sampled_from((None, *BuildTransition)),
    st.sampled_from((None, *JobStatus)),
    st.sampled_from((None, *AgentLifecycle)),
    st.sampled_from((None, *AppHealth)),
)
running: st.SearchStrategy[FactValues] = st.tuples(
    st.just(BuildTransition.START),
    st.just(JobStatus.SUCCEEDED),
    st.sampled_from((None, AgentLifecycle.READY)),
    st.sampled_from(AppHealth),
)
tasks = st.builds(
    Row,
    owner=st.sampled_from(OWNERS),
    facts=any_facts | running,
    standalone=st.booleans(),
    process=st.sampled_from((None, THIS, ALIVE, DEAD, FORGOTTEN)),
    lost=st.sampled_from((None, *AGES)),
    labels=st.fixed_dictionaries(
        {}, optional={"env": st.sampled_from(("prod", "dev")), "team": st.sampled_from("ab")}
    ),
    age=st.sampled_from(AGES),
)


@dataclass(frozen=True)
class Query:
    """What is listed, and how many tasks a page returns and examines, at most."""

    owner: str | None
    status: TaskStatus
    labels: Sequence[LabelSelector]
    view: TaskView
    limit: int
    scan_rows: int

    def selects(self, task: Task) -> bool:
        assert task.labels is not None
        return derive(task.facts).status is self.status and all(
            one.key in task.labels and one.value in (None, task.labels[one.key])
            for one in self.labels
        )


queries = st.builds(
    Query,
    owner=st.sampled_from((None, *OWNERS)),
    status=st.sampled_from(TaskStatus),
    labels=st.lists(st.sampled_from(SELECTORS), max_size=2),
    view=st.sampled_from(TaskView),
    limit=st.integers(1, 5),
    scan_rows=st.sampled_from((1, 2, 3, 100)),
)

anything = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("up", AGES)
@pytest.mark.parametrize("scan_rows", [1, 100])
async def test_standalone_tasks_are_listed_by_the_status_that_their_lease_gives_them(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch, up: int, scan_rows: int
) -> None:
    facts = (BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.READY, AppHealth.HEALTHY)
    rows = [
        Row(facts=facts, standalone=True, process=process, lost=lost, age=age)
        for process in (None, THIS, ALIVE, DEAD, FORGOTTEN)
        for lost in (None, *AGES)
        for age in AGES
    ]
    await _make(store, sql, rows, up)
    everything, _ = await store.tasks.list_(owner=None, after=NEWEST, limit=1000)
    monkeypatch.setattr(task_lists, "SCAN_ROWS", scan_rows)
    for status in (TaskStatus.ACTIVE, TaskStatus.UNKNOWN):
        query = Query(None, status, (), TaskView.BASIC, 100, scan_rows)
        found = [task.task_id for task in await _all_pages(store, query)]
        assert found == [task.task_id for task in everything if query.selects(task)]
        assert found or (status, up) == (TaskStatus.UNKNOWN, 0)


@anything
@given(
    rows=st.lists(tasks, max_size=25),
    some=st.lists(queries, min_size=3, max_size=3),
    up=st.sampled_from(AGES),
)
async def test_a_filtered_list_is_the_whole_list_filtered(
    store: Store,
    sql: Connection,
    rows: list[Row],
    some: list[Query],
    up: int,
) -> None:
    await _make(store, sql, rows, up)
    with pytest.MonkeyPatch.context() as patch:
        for query in some:
            everything, _ = await store.tasks.list_(
                owner=query.owner, after=NEWEST, limit=1000, view=query.view
            )
            patch.setattr(task_lists, "SCAN_ROWS", query.scan_rows)
            found = await _all_pages(store, query)
            assert found == [task for task in everything if query.selects(task)]


@anything
@given(rows=st.lists(tasks, min_size=5, max_size=25), query=queries, seed=st.integers(0, 2**32))
async def test_deletions_between_pages_hide_no_task(
    store: Store, sql: Connection, rows: list[Row], query: Query, seed: int
) -> None:
    await _make(store, sql, rows, AGES[-1])
    everything, _ = await store.tasks.list_(owner=query.owner, after=NEWEST, limit=1000)
    wanted = [task.task_id for task in everything if query.selects(task)]
    to_delete = random.Random(seed).sample(everything, len(everything) // 3)
    deleted = {task.task_id for task in to_delete}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_lists, "SCAN_ROWS", query.scan_rows)
        pages = await _all_pages(store, query, delete=[task.task_id for task in to_delete])
    found = [task.task_id for task in pages]
    assert [one for one in found if one not in deleted] == [
        one for one in wanted if one not in deleted
    ]
    assert len(found) == len(set(found))


async def test_a_search_for_labels_reads_a_bounded_number_of_bytes(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may have 70 KB of labels, and a page examines many tasks."""
    large = {f"label-{number}": "x" * 255 for number in range(40)}
    rows = [Row(labels=large) for _ in range(20)]
    await _make(store, sql, [*rows, Row(labels={"env": "prod"}, age=100)], 0)
    monkeypatch.setattr(task_lists, "SCAN_BYTES", 50_000)
    pages: list[int] = []
    position: ListPosition | None = NEWEST
    while position is not None:
        page, position = await store.tasks.list_(
            owner=None, after=position, limit=9, labels=[LabelSelector("env", "prod")]
        )
        pages.append(len(page))
    assert pages == [0, 0, 0, 0, 1]


async def _all_pages(store: Store, query: Query, *, delete: Sequence[UUID] = ()) -> list[Task]:
    """Read all pages, and delete a task after each."""
    doomed = list(delete)
    found: list[Task] = []
    position: ListPosition | None = NEWEST
    while position is not None:
        page, position = await store.tasks.list_(
            owner=query.owner,
            status=query.status,
            after=position,
            limit=query.limit,
            labels=query.labels,
            view=query.view,
        )
        found += page
        assert len(page) <= query.limit
        if doomed:
            await store.tasks.delete(doomed.pop())
    return found


async def _make(store: Store, sql: Connection, rows: Sequence[Row], up: int) -> None:
    """Replace all tasks. The servers have been up for `up` seconds."""
    now: datetime = await sql.fetchval("SELECT now()")
    terms = store.tasks._lease_terms
    store.tasks._lease_terms = terms._replace(up_since=_before(now, up), lease=LEASE)
    await sql.execute("TRUNCATE tasks, log_heads")
    await sql.execute("DELETE FROM processes WHERE process_id <> $1", terms.process_id)
    await sql.execute(
        "INSERT INTO processes VALUES ($1, now() + interval '1 h', now()),"
        " ($2, now() - interval '1 day', now())",
        ALIVE,
        DEAD,
    )
    made = [
        (
            UUID(int=number),
            row.owner,
            str(number),
            row.standalone,
            *row.facts,
            terms.process_id if row.process == THIS else row.process,
            None if row.lost is None else _before(now, row.lost),
            json.dumps(row.labels),
            _before(now, row.age),
        )
        for number, row in enumerate(rows)
    ]
    await sql.executemany(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, agent_token_hash,"
        " standalone, transition, job_status, lifecycle, health, session_process,"
        " session_lost_at, labels, created_at)"
        " VALUES ($1, $2, $3, '', 'do it', '', $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        made,
    )
    await sql.execute("INSERT INTO log_heads (task_id) SELECT task_id FROM tasks")


def _before(now: datetime, seconds: int) -> datetime:
    return now - timedelta(seconds=seconds)


async def test_a_list_by_status_is_prepared_and_derived_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement has 16 KB: to derive the classes takes 14 ms, and to plan it nearly as long."""
    store = await Store.open(database, read_connections=1, lease=LEASE)

    async def list_unknown() -> None:
        await store.tasks.list_(owner="local", status=TaskStatus.UNKNOWN, after=NEWEST, limit=1)

    await list_unknown()
    monkeypatch.delattr(status_sql, "derive")
    await list_unknown()
    async with store.tasks._connections.use() as connection:
        prepared = await connection.fetch(
            "SELECT generic_plans FROM pg_prepared_statements WHERE length(statement) > 15000"
        )
    await store.close()
    assert [row["generic_plans"] for row in prepared] == [2]
