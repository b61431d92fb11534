"""The status of tasks as SQL, made from the state machine of the domain, for lists by status.

An index has this expression. It may hold nothing that changes with time, but the lease of a
standalone task ends by itself. So the expression gives each task a *class*, and a query adds the
condition on the lease where a class needs one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from tasklogs_server.domain.reports import expire_lease
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
    TaskStatus,
    derive,
)

_FACTS: Sequence[tuple[str, Sequence[str | None]]] = (
    ("transition", (None, *BuildTransition)),
    ("job_status", (None, *JobStatus)),
    ("lifecycle", (None, *AgentLifecycle)),
    ("health", (None, *AppHealth)),
)

# A held task has a session that no process recorded as lost. A task that is not held has a lease
# that began at LEASE_BEGAN.
IS_HELD = "(t.session_process IS NOT NULL AND t.session_lost_at IS NULL)"
LEASE_BEGAN = "coalesce(t.session_lost_at, t.created_at)"


@dataclass(frozen=True, slots=True)
class StatusClass:
    """Tasks whose status follows from their class, and from their lease if `after_lease` differs.

    `status` counts while the lease runs, `after_lease` when it is over. `is_held` is None if the
    two are the same, because such a class needs no lease.
    """

    status: TaskStatus
    after_lease: TaskStatus
    is_held: bool | None = None

    @property
    def key(self) -> str:
        """The value of the expression for these tasks."""
        if self.is_held is None:
            return self.status
        return f"{self.status} {'held' if self.is_held else 'lost'}"


@cache
def classes(status: TaskStatus) -> Sequence[StatusClass]:
    """Return the classes whose tasks have this status, now or when their lease is over."""
    pairs = sorted({_pair(facts) for facts in _all_facts()})
    plain = StatusClass(status, status)
    leased = [
        StatusClass(before, after, is_held)
        for before, after in pairs
        if before is not after and status in (before, after)
        for is_held in (True, False)
    ]
    return plain, *leased


@cache
def class_expression() -> str:
    """Return the SQL expression for the class of a row `t` of `tasks`. It is immutable.

    It is a CASE for each fact, and covers every combination of facts. Values that lead to the same
    result share a branch. NULL, and values that this version does not know, are the last branch.
    """
    return _branches(_FACTS, ())


def _branches(open_facts: Sequence[tuple[str, Sequence[str | None]]], known: Sequence[str]) -> str:
    if not open_facts:
        return _class_of(_facts_of(known))
    (column, values), *rest = open_facts
    by_result: dict[str, list[str | None]] = {}
    for value in values:
        by_result.setdefault(_branches(rest, (*known, value or "")), []).append(value)
    default, *others = by_result.items()  # None is the first value
    whens = " ".join(
        f"WHEN t.{column} IN ({_literals(same)}) THEN {result}" for result, same in others
    )
    return f"CASE {whens} ELSE {default[0]} END" if others else default[0]


def _literals(values: Sequence[str | None]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _class_of(facts: Facts) -> str:
    status, after_lease = _pair(facts)
    plain = StatusClass(status, status).key
    if status is after_lease:
        return f"'{plain}'"
    held, lost = (StatusClass(status, after_lease, is_held).key for is_held in (True, False))
    return (
        f"CASE WHEN NOT t.standalone THEN '{plain}' WHEN {IS_HELD} THEN '{held}' ELSE '{lost}' END"
    )


def _pair(facts: Facts) -> tuple[TaskStatus, TaskStatus]:
    """Return the status while the lease of a standalone task runs, and when it is over."""
    return derive(facts).status, derive(expire_lease(facts)).status


def _all_facts() -> Iterator[Facts]:
    return map(_facts_of, product(*([value or "" for value in values] for _, values in _FACTS)))


def _facts_of(values: Sequence[str]) -> Facts:
    """Return facts from the values of their columns, "" for NULL."""
    transition, job_status, lifecycle, health = values
    return Facts(
        build_number=None,
        transition=BuildTransition(transition) if transition else None,
        job_status=JobStatus(job_status) if job_status else None,
        lifecycle=AgentLifecycle(lifecycle) if lifecycle else None,
        health=AppHealth(health) if health else None,
    )
