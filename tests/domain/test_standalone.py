"""A standalone task's facts: they come from its agent stream alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs_server.domain.reports import (
    LEASE,
    connect_standalone,
    expire_lease,
    observe_agent,
    pause_standalone,
)
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

EVENTS = {
    "connect": connect_standalone,
    "pause": pause_standalone,
    "expire": expire_lease,
}


def started(lifecycle: AgentLifecycle | None, health: AppHealth | None, build: int = 1) -> Facts:
    return Facts(build, BuildTransition.START, JobStatus.SUCCEEDED, lifecycle, health)


def stopped(build: int) -> Facts:
    return Facts(build, BuildTransition.STOP, JobStatus.SUCCEEDED, None, None)


READY = started(AgentLifecycle.READY, AppHealth.HEALTHY)


def test_the_lease_is_thirty_seconds() -> None:
    assert LEASE.total_seconds() == 30


def test_the_first_connection_starts_build_1() -> None:
    assert connect_standalone(NO_FACTS) == started(None, None)


def test_a_goodbye_for_a_pause_is_a_stop_build() -> None:
    paused = pause_standalone(READY)
    assert paused == stopped(2)
    assert derive(paused).status is TaskStatus.PAUSED


def test_a_second_goodbye_changes_nothing() -> None:
    assert pause_standalone(stopped(2)) == stopped(2)


def test_a_connection_after_a_pause_starts_the_next_build() -> None:
    assert connect_standalone(stopped(2)) == started(None, None, build=3)


def test_a_reconnect_within_the_lease_changes_nothing() -> None:
    assert connect_standalone(READY) == READY


@pytest.mark.parametrize("job_status", [one for one in JobStatus if one is not JobStatus.SUCCEEDED])
def test_an_unfinished_build_is_followed_by_the_next_one(
    job_status: JobStatus,
) -> None:
    starting = Facts(4, BuildTransition.START, job_status, None, None)
    stopping = Facts(4, BuildTransition.STOP, job_status, None, None)
    assert connect_standalone(starting) == started(None, None, build=5)
    assert pause_standalone(stopping) == stopped(5)


def test_a_lost_lease_turns_the_lifecycle_off() -> None:
    lost = expire_lease(READY)
    assert lost == started(AgentLifecycle.OFF, AppHealth.HEALTHY)
    assert derive(lost).status is TaskStatus.UNKNOWN


@pytest.mark.parametrize("facts", [NO_FACTS, stopped(2)])
def test_a_lease_that_runs_out_without_a_started_build_changes_nothing(facts: Facts) -> None:
    assert expire_lease(facts) == facts


@pytest.mark.parametrize(
    "lifecycle",
    [
        AgentLifecycle.SHUTTING_DOWN,
        AgentLifecycle.SHUTDOWN_TIMEOUT,
        AgentLifecycle.SHUTDOWN_ERROR,
        AgentLifecycle.OFF,
    ],
)
def test_a_reconnect_lets_the_agent_say_ready_again(lifecycle: AgentLifecycle) -> None:
    back = connect_standalone(started(lifecycle, AppHealth.HEALTHY))
    assert back == started(None, AppHealth.HEALTHY)
    assert observe_agent(back, None, AgentLifecycle.READY, None) == READY


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=20))
def test_build_numbers_only_grow_and_a_connection_means_a_started_task(
    events: list[str],
) -> None:
    facts = NO_FACTS
    for event in events:
        before, facts = facts, EVENTS[event](facts)
        assert (facts.build_number or 0) >= (before.build_number or 0)
        assert EVENTS[event](facts) == facts
        if event == "connect":
            assert derive(facts).build is TaskStatus.ACTIVE
            assert facts.lifecycle is not AgentLifecycle.OFF
        if event == "pause":
            assert derive(facts).status is TaskStatus.PAUSED
