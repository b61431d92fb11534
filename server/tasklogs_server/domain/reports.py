"""The rules of reports: the facts a task has and a report in, the facts it has afterwards out.

Orchestrators report builds and, where they know better, the agent's state; agents report their
own. A *standalone* task has no orchestrator: the life of its agent stream makes its builds.
"""

from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from tasklogs_server.domain.errors import StaleReport
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)

LEASE = timedelta(seconds=30)
"""How long a standalone task's lost agent stream may stay away before its lifecycle is OFF."""

_SHUTDOWN = (
    AgentLifecycle.SHUTTING_DOWN,
    AgentLifecycle.SHUTDOWN_TIMEOUT,
    AgentLifecycle.SHUTDOWN_ERROR,
    AgentLifecycle.OFF,
)


def report_build(
    current: Facts, build_number: int, transition: BuildTransition, job_status: JobStatus
) -> Facts:
    """An orchestrator's report of a build; raises StaleReport and so changes nothing.

    A newer build may begin at any job status and leave a gap in the numbers (reports may be
    lost); nothing is known of its agent. Within a build the transition is fixed and the job only
    moves forward; a repeat changes nothing.
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
    """An orchestrator's report of the latest build's agent; None leaves a field as it is.

    It may say anything, also what undoes an earlier report, and of a build with any transition.
    Raises StaleReport for an older build and for one that has not been reported.
    """
    if current.build_number is None or build_number > current.build_number:
        raise StaleReport(f"build {build_number} has not been reported yet")
    _refuse_older(current.build_number, build_number)
    return _with_agent(current, lifecycle, health)


def observe_agent(
    current: Facts,
    session_build: int | None,
    lifecycle: AgentLifecycle | None,
    health: AppHealth | None,
) -> Facts | None:
    """The agent's own report; None where it changes nothing or is not about the latest build.

    It counts for the latest build if that is a START and the session is bound to it, or to none.
    It cannot undo SHUTTING_DOWN or later: such a lifecycle only moves forward. The health of the
    same report counts all the same.
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
    """A standalone task's agent stream has begun: its task runs.

    The stream that comes back during the same build undoes what the loss of the last one, or its
    agent's own shutdown, left behind: nobody else could. A connection after a pause is a build.
    """
    if not _latest_did(current, BuildTransition.START):
        return _next_standalone_build(current, BuildTransition.START)
    if current.lifecycle in _SHUTDOWN:
        return replace(current, lifecycle=None)
    return current


def pause_standalone(current: Facts) -> Facts:
    """A standalone task's agent has said goodbye for a pause."""
    if _latest_did(current, BuildTransition.STOP):
        return current
    return _next_standalone_build(current, BuildTransition.STOP)


def expire_lease(facts: Facts) -> Facts:
    """A standalone task's agent stream was lost and not back within LEASE.

    A task that is not started has no lease to lose, so a late timer does no harm.
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
