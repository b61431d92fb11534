"""The rules of reports: how a report changes a task's facts.

Orchestrators report builds, and may report the agent's state. Agents report their own state. A
*standalone* task has no orchestrator: its builds are derived from the opening and the end of its
agent streams.
"""

from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from tasklogs_server.domain.errors import BuildNotReported, StaleReport
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)

LEASE = timedelta(seconds=30)
"""How long after the loss of its agent stream a standalone task's lifecycle becomes OFF."""

_SHUTDOWN = (
    AgentLifecycle.SHUTTING_DOWN,
    AgentLifecycle.SHUTDOWN_TIMEOUT,
    AgentLifecycle.SHUTDOWN_ERROR,
    AgentLifecycle.OFF,
)


def report_build(
    current: Facts, build_number: int, transition: BuildTransition, job_status: JobStatus
) -> Facts:
    """Apply an orchestrator's report of a build. Raises StaleReport.

    A newer build may begin with any job status, and build numbers may have gaps, because reports
    may be lost. The state of its agent is not known yet. Within a build the transition is fixed and
    the job only moves forward. A repeated report changes nothing.
    """
    if current.build_number is None or build_number > current.build_number:
        return Facts(build_number, transition, job_status, lifecycle=None, health=None)
    _refuse_older(current.build_number, build_number)
    if transition is not current.transition:
        raise StaleReport(f"the transition of build {build_number} is already {current.transition}")
    if job_status is current.job_status:
        return current
    if _job_stage(job_status) <= _job_stage(current.job_status):
        raise StaleReport(
            f"the job of build {build_number} is already {current.job_status}"
            f" and cannot become {job_status}"
        )
    return replace(current, job_status=job_status)


def report_agent(
    current: Facts,
    build_number: int,
    lifecycle: AgentLifecycle | None,
    health: AppHealth | None,
) -> Facts:
    """Apply an orchestrator's report of the latest build's agent; None leaves a field as it is.

    Any value is accepted, even one that undoes an earlier report, for a build with any transition.
    Raises StaleReport for an older build, BuildNotReported for one that has not been reported.
    """
    if current.build_number is None or build_number > current.build_number:
        raise BuildNotReported(build_number)
    _refuse_older(current.build_number, build_number)
    return _with_agent(current, lifecycle, health)


def observe_agent(
    current: Facts,
    session_build: int | None,
    lifecycle: AgentLifecycle | None,
    health: AppHealth | None,
) -> Facts | None:
    """Apply an agent's own report; None if it changes nothing or is not about the latest build.

    It is about the latest build if that is a START, and the session is bound to it or to no build.
    It cannot undo SHUTTING_DOWN or a later lifecycle, but its health is still applied.
    """
    if current.transition is not BuildTransition.START:
        return None
    if session_build is not None and session_build != current.build_number:
        return None
    if _undoes_shutdown(current.lifecycle, lifecycle):
        lifecycle = None
    observed = _with_agent(current, lifecycle, health)
    return None if observed == current else observed


def connect_standalone(current: Facts) -> Facts:
    """Apply the opening of a standalone task's agent stream: the task runs.

    A stream that returns during the same build clears the lifecycle that a lost stream or the
    agent's shutdown has set, because there is no orchestrator to clear it. A stream after a pause
    is a new build.
    """
    if not _latest_did(current, BuildTransition.START):
        return _next_standalone_build(current, BuildTransition.START)
    if current.lifecycle in _SHUTDOWN:
        return replace(current, lifecycle=None)
    return current


def pause_standalone(current: Facts) -> Facts:
    """Apply the Goodbye of a standalone task's agent that pauses."""
    if _latest_did(current, BuildTransition.STOP):
        return current
    return _next_standalone_build(current, BuildTransition.STOP)


def expire_lease(facts: Facts) -> Facts:
    """Apply the end of a standalone task's lease: its stream was lost and did not return in time.

    A task that is not started has no lease, so a late call changes nothing.
    """
    if facts.transition is not BuildTransition.START:
        return facts
    return replace(facts, lifecycle=AgentLifecycle.OFF)


def _refuse_older(latest: int, build_number: int) -> None:
    if build_number < latest:
        raise StaleReport(f"build {build_number} is older than the latest build {latest}")


def _job_stage(job_status: JobStatus | None) -> int:
    match job_status:
        case None:
            return 0
        case JobStatus.PENDING:
            return 1
        case JobStatus.RUNNING:
            return 2
        case JobStatus.CANCELING:
            return 3
        case JobStatus.SUCCEEDED | JobStatus.FAILED | JobStatus.CANCELED:
            return 4
        case _:
            assert_never(job_status)


def _undoes_shutdown(current: AgentLifecycle | None, wanted: AgentLifecycle | None) -> bool:
    if current not in _SHUTDOWN:
        return False
    return wanted not in _SHUTDOWN[_SHUTDOWN.index(current) :]


def _with_agent(
    current: Facts, lifecycle: AgentLifecycle | None, health: AppHealth | None
) -> Facts:
    return replace(
        current,
        lifecycle=current.lifecycle if lifecycle is None else lifecycle,
        health=current.health if health is None else health,
    )


def _latest_did(facts: Facts, transition: BuildTransition) -> bool:
    return facts.transition is transition and facts.job_status is JobStatus.SUCCEEDED


def _next_standalone_build(current: Facts, transition: BuildTransition) -> Facts:
    build_number = (current.build_number or 0) + 1
    return Facts(build_number, transition, JobStatus.SUCCEEDED, lifecycle=None, health=None)
