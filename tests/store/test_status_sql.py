"""The status of tasks in SQL: it is the status that the domain derives, and an index has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store.status_sql import class_expression, classes
from tests.store.logs import Connection

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "task_status.jsonl").read_text().splitlines()
]
# What makes a lease: whether the task is standalone, a session, and whether the session was lost.
SESSIONS = [
    (standalone, has_session, is_lost)
    for standalone in (False, True)
    for has_session in (False, True)
    for is_lost in (False, True)
]


async def test_each_combination_of_facts_has_a_class_with_its_status(sql: Connection) -> None:
    """The lease runs. When it is over, the lifecycle is OFF."""
    assert len(VECTORS) == 1050
    rows = await sql.fetch(
        f"""
        SELECT facts, standalone, has_session, is_lost, ({class_expression()}) AS class
          FROM (SELECT facts, standalone, has_session, is_lost,
                       facts->>'transition' AS transition, facts->>'job_status' AS job_status,
                       facts->>'lifecycle' AS lifecycle, facts->>'health' AS health,
                       CASE WHEN has_session THEN gen_random_uuid() END AS session_process,
                       CASE WHEN is_lost THEN now() END AS session_lost_at
                  FROM unnest($1::jsonb[]) AS facts
                 CROSS JOIN unnest($2::bool[], $3::bool[], $4::bool[])
                         AS s (standalone, has_session, is_lost)) t""",
        [json.dumps(one) for one in VECTORS],
        *(list(column) for column in zip(*SESSIONS, strict=True)),
    )
    assert len(rows) == len(VECTORS) * len(SESSIONS)
    by_facts = {_facts(one): TaskStatus(one["status"]) for one in VECTORS}
    by_key = {one.key: one for status in TaskStatus for one in classes(status)}
    for row in rows:
        facts = json.loads(row["facts"])
        of = by_key[row["class"]]
        assert of.status is TaskStatus(facts["status"]), facts
        if row["standalone"] and facts["transition"] == "START":
            assert of.after_lease is by_facts[_facts(facts | {"lifecycle": "OFF"})], facts
        if of.is_held is not None:
            assert row["standalone"]
            assert of.is_held is (row["has_session"] and not row["is_lost"])


async def test_a_task_without_facts_is_pending(sql: Connection) -> None:
    for standalone in (False, True):
        found = await sql.fetchval(
            f"SELECT {class_expression()} FROM (SELECT NULL AS transition, NULL AS job_status,"
            " NULL AS lifecycle, NULL AS health, $1::bool AS standalone,"
            " NULL::uuid AS session_process, NULL::timestamptz AS session_lost_at) t",
            standalone,
        )
        assert found == TaskStatus.PENDING


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        ("tasks_by_status", "({}), created_at, task_id"),
        ("tasks_by_owner_and_status", "owner, ({}), created_at, task_id"),
    ],
)
async def test_the_indexes_have_the_expression_of_todays_state_machine(
    sql: Connection, index: str, columns: str
) -> None:
    """If it changed, a migration must replace the indexes: with others the lists are slow."""
    expression = class_expression().replace("t.", "")
    await sql.execute(
        f"CREATE INDEX expected ON tasks ({columns.format(expression)}) WHERE deleted_at IS NULL"
    )
    made, expected = [
        await sql.fetchval("SELECT pg_get_indexdef($1::regclass)", name)
        for name in (index, "expected")
    ]
    assert made.replace(index, "expected") == expected


def _facts(one: dict[str, str | None]) -> tuple[str | None, ...]:
    return tuple(one[name] for name in ("transition", "job_status", "lifecycle", "health"))
