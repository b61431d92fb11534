"""The state machine, tested with every combination of facts that the contract lists."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tasklogs_server.domain.status import (
    NO_FACTS,
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
    TaskStatus,
    derive,
)

VECTORS = Path(__file__).parents[1] / "data" / "task_status.jsonl"

Row = dict[str, str | None]


def rows() -> list[Row]:
    return [json.loads(line) for line in VECTORS.read_text().splitlines()]


def facts_of(row: Row) -> Facts:
    transition, job = row["transition"], row["job_status"]
    lifecycle, health = row["lifecycle"], row["health"]
    return Facts(
        build_number=1,
        transition=None if transition is None else BuildTransition(transition),
        job_status=None if job is None else JobStatus(job),
        lifecycle=None if lifecycle is None else AgentLifecycle(lifecycle),
        health=None if health is None else AppHealth(health),
    )


def agents() -> Iterator[tuple[AgentLifecycle | None, AppHealth | None]]:
    return product([None, *AgentLifecycle], [None, *AppHealth])


def test_the_vectors_hold_every_combination_of_facts_once() -> None:
    listed = [facts_of(row) for row in rows()]
    possible = {
        Facts(1, transition, job, lifecycle, health)
        for transition, job, (lifecycle, health) in product(
            BuildTransition, [None, *JobStatus], list(agents())
        )
    }
    assert len(listed) == len(possible) == 1050
    assert set(listed) == possible


@pytest.mark.parametrize("transition", BuildTransition)
@pytest.mark.parametrize("job_status", [None, *JobStatus])
def test_every_layer_and_the_status_are_as_the_vectors_say(
    transition: BuildTransition, job_status: JobStatus | None
) -> None:
    chosen = [r for r in rows() if (r["transition"], r["job_status"]) == (transition, job_status)]
    assert len(chosen) == 50
    for row in chosen:
        detail = derive(facts_of(row))
        computed = (detail.build, detail.agent, detail.app, detail.status)
        assert computed == (row["build"], row["agent"], row["app"], row["status"]), row


def test_a_task_without_a_build_is_pending() -> None:
    detail = derive(NO_FACTS)
    assert detail.status is TaskStatus.PENDING
    assert (detail.build, detail.agent, detail.app) == (
        TaskStatus.PENDING,
        TaskStatus.INITIALIZING,
        TaskStatus.UNKNOWN,
    )


def test_without_a_build_no_other_fact_counts() -> None:
    for job_status, (lifecycle, health) in product([None, *JobStatus], list(agents())):
        facts = Facts(None, None, job_status, lifecycle, health)
        assert derive(facts).status is TaskStatus.PENDING


def test_the_detail_carries_the_facts_it_rests_on() -> None:
    facts = facts_of(rows()[0])
    assert derive(facts).facts == facts


def test_the_stored_text_of_every_value_is_its_name() -> None:
    for enum in (TaskStatus, BuildTransition, JobStatus, AgentLifecycle, AppHealth):
        assert [str(value) for value in enum] == list(enum.__members__)
