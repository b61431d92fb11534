"""What reports may change, and what they may not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs_server.domain.errors import BuildNotReported, StaleReport
from tasklogs_server.domain.reports import observe_agent, report_agent, report_build
from tasklogs_server.domain.status import (
    NO_FACTS,
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)

START, STOP, DELETE = BuildTransition

JOB_ORDER: list[set[JobStatus]] = [
    {JobStatus.PENDING},
    {JobStatus.RUNNING},
    {JobStatus.CANCELING},
    {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED},
]
SHUTDOWN_ORDER = [
    AgentLifecycle.SHUTTING_DOWN,
    AgentLifecycle.SHUTDOWN_TIMEOUT,
    AgentLifecycle.SHUTDOWN_ERROR,
    AgentLifecycle.OFF,
]

numbers = st.integers(min_value=1, max_value=2**31 - 1)
transitions = st.sampled_from(BuildTransition)
jobs = st.sampled_from(JobStatus)
lifecycles = st.none() | st.sampled_from(AgentLifecycle)
healths = st.none() | st.sampled_from(AppHealth)
built = st.builds(Facts, numbers, transitions, jobs, lifecycles, healths)
any_facts = built | st.just(NO_FACTS)


def job_stage(job_status: JobStatus | None) -> int:
    return next(stage for stage, jobs in enumerate(JOB_ORDER) if job_status in jobs)


def latest(facts: Facts) -> int:
    assert facts.build_number is not None
    return facts.build_number


def running(
    lifecycle: AgentLifecycle | None = None, health: AppHealth | None = None, build: int = 7
) -> Facts:
    return Facts(build, START, JobStatus.SUCCEEDED, lifecycle, health)


# Builds.


@given(transitions, jobs)
def test_the_first_build_may_have_any_number_and_job(
    transition: BuildTransition, job: JobStatus
) -> None:
    assert report_build(NO_FACTS, 5, transition, job) == Facts(5, transition, job, None, None)


@given(built, st.integers(min_value=1, max_value=1000), transitions, jobs)
def test_a_newer_build_resets_what_was_known_of_the_agent(
    current: Facts, newer_by: int, transition: BuildTransition, job: JobStatus
) -> None:
    number = latest(current) + newer_by
    expected = Facts(number, transition, job, None, None)
    assert report_build(current, number, transition, job) == expected


@given(built, st.integers(min_value=1, max_value=1000), transitions, jobs)
def test_an_older_build_never_changes_anything(
    current: Facts, older_by: int, transition: BuildTransition, job: JobStatus
) -> None:
    with pytest.raises(StaleReport, match="older than the latest build"):
        report_build(current, latest(current) - older_by, transition, job)


@given(any_facts, numbers, transitions, jobs)
def test_repeating_an_accepted_build_report_changes_nothing(
    current: Facts, number: int, transition: BuildTransition, job: JobStatus
) -> None:
    try:
        accepted = report_build(current, number, transition, job)
    except StaleReport:
        return
    assert report_build(accepted, number, transition, job) == accepted


@given(built)
def test_a_repeat_keeps_what_is_known_of_the_agent(current: Facts) -> None:
    assert current.transition is not None
    assert current.job_status is not None
    repeat = report_build(current, latest(current), current.transition, current.job_status)
    assert repeat == current


@pytest.mark.parametrize("reported", JobStatus)
@pytest.mark.parametrize("current", JobStatus)
def test_within_a_build_the_job_only_moves_forward(current: JobStatus, reported: JobStatus) -> None:
    facts = Facts(7, START, current, AgentLifecycle.READY, AppHealth.HEALTHY)
    if reported is current or job_stage(reported) > job_stage(current):
        assert report_build(facts, 7, START, reported) == replace(facts, job_status=reported)
    else:
        with pytest.raises(StaleReport, match=f"already {current} and cannot become {reported}"):
            report_build(facts, 7, START, reported)


@given(built, transitions, jobs)
def test_within_a_build_the_transition_is_fixed(
    current: Facts, transition: BuildTransition, job: JobStatus
) -> None:
    if transition is current.transition:
        return
    with pytest.raises(StaleReport, match=f"is already {current.transition}"):
        report_build(current, latest(current), transition, job)


@given(st.lists(st.tuples(st.integers(1, 3), transitions, jobs), max_size=30))
def test_no_sequence_of_build_reports_moves_backwards(
    reports: list[tuple[int, BuildTransition, JobStatus]],
) -> None:
    current = NO_FACTS
    for report in reports:
        try:
            moved = report_build(current, *report)
        except StaleReport:
            continue
        if current.build_number is not None:
            assert latest(moved) >= latest(current)
        if moved.build_number == current.build_number:
            assert moved.transition is current.transition
            assert job_stage(moved.job_status) >= job_stage(current.job_status)
        current = moved


# Reports of an orchestrator about the agent.


@given(built, lifecycles, healths)
def test_an_orchestrator_may_report_any_state_of_the_latest_build(
    current: Facts, lifecycle: AgentLifecycle | None, health: AppHealth | None
) -> None:
    reported = report_agent(current, latest(current), lifecycle, health)
    assert reported == replace(
        current,
        lifecycle=lifecycle or current.lifecycle,
        health=health or current.health,
    )
    assert report_agent(reported, latest(current), lifecycle, health) == reported


@given(built, st.integers(min_value=1, max_value=1000), lifecycles, healths)
def test_an_agent_report_for_another_build_is_refused(
    current: Facts, apart: int, lifecycle: AgentLifecycle | None, health: AppHealth | None
) -> None:
    with pytest.raises(StaleReport, match="older than the latest build"):
        report_agent(current, latest(current) - apart, lifecycle, health)
    with pytest.raises(BuildNotReported, match="has not been reported yet"):
        report_agent(current, latest(current) + apart, lifecycle, health)


def test_an_agent_report_before_any_build_is_refused() -> None:
    with pytest.raises(BuildNotReported, match="build 1 has not been reported yet"):
        report_agent(NO_FACTS, 1, AgentLifecycle.READY, AppHealth.HEALTHY)


# Reports of the agent itself.


def test_an_agent_reports_for_the_start_build_it_belongs_to() -> None:
    ready = running(AgentLifecycle.READY, AppHealth.HEALTHY)
    assert observe_agent(running(), 7, AgentLifecycle.READY, AppHealth.HEALTHY) == ready
    assert observe_agent(running(), None, AgentLifecycle.READY, AppHealth.HEALTHY) == ready


def test_an_agent_that_leaves_a_field_unset_leaves_it_as_it_is() -> None:
    ready = running(AgentLifecycle.READY, AppHealth.HEALTHY)
    assert observe_agent(ready, 7, None, AppHealth.UNHEALTHY) == replace(
        ready, health=AppHealth.UNHEALTHY
    )
    assert observe_agent(ready, 7, AgentLifecycle.START_ERROR, None) == replace(
        ready, lifecycle=AgentLifecycle.START_ERROR
    )


@pytest.mark.parametrize("session_build", [6, 8])
def test_an_agent_of_another_build_changes_nothing(session_build: int) -> None:
    report = (AgentLifecycle.READY, AppHealth.HEALTHY)
    assert observe_agent(running(), session_build, *report) is None


@pytest.mark.parametrize("session_build", [None, 7])
@pytest.mark.parametrize("transition", [STOP, DELETE])
def test_an_agents_report_about_a_build_that_does_not_start_changes_nothing(
    transition: BuildTransition, session_build: int | None
) -> None:
    stopping = Facts(7, transition, JobStatus.RUNNING, None, None)
    report = (AgentLifecycle.READY, AppHealth.HEALTHY)
    assert observe_agent(stopping, session_build, *report) is None


def test_an_agents_report_before_any_build_changes_nothing() -> None:
    assert observe_agent(NO_FACTS, None, AgentLifecycle.READY, AppHealth.HEALTHY) is None


@given(any_facts, st.none() | numbers, lifecycles, healths)
def test_a_repeated_report_of_an_agent_changes_nothing(
    current: Facts,
    session_build: int | None,
    lifecycle: AgentLifecycle | None,
    health: AppHealth | None,
) -> None:
    observed = observe_agent(current, session_build, lifecycle, health)
    assert observed != current
    after = observed or current
    assert observe_agent(after, session_build, lifecycle, health) is None


@pytest.mark.parametrize("reported", AgentLifecycle)
@pytest.mark.parametrize("current", SHUTDOWN_ORDER)
def test_an_agent_cannot_undo_a_shutdown_but_its_health_counts(
    current: AgentLifecycle, reported: AgentLifecycle
) -> None:
    order = SHUTDOWN_ORDER
    forward = reported in order and order.index(reported) > order.index(current)
    observed = observe_agent(running(current), 7, reported, AppHealth.HEALTHY)
    assert observed == running(reported if forward else current, AppHealth.HEALTHY)


def test_an_orchestrator_can_undo_a_shutdown() -> None:
    off = running(AgentLifecycle.OFF)
    assert report_agent(off, 7, AgentLifecycle.READY, None) == running(AgentLifecycle.READY)


@pytest.mark.parametrize("reported", [one for one in AgentLifecycle if one not in SHUTDOWN_ORDER])
def test_before_a_shutdown_the_latest_report_of_an_agent_wins(reported: AgentLifecycle) -> None:
    current = running(AgentLifecycle.START_TIMEOUT, AppHealth.HEALTHY)
    observed = observe_agent(current, 7, reported, None) or current
    assert observed.lifecycle is reported
