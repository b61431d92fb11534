"""What the service consists of: the parts that work on the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import assert_never
from uuid import UUID

from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bootstrap.limits import ServerLimits
from tasklogs_server.bootstrap.processes import bus_of
from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import (
    BuildReported,
    Deleted,
    Moved,
    Note,
    SessionBegan,
    SessionDoubted,
)
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.names import TaskId
from tasklogs_server.ingest.elsewhere import Elsewhere, SyncsForOthers
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.large_commits import LargeCommits
from tasklogs_server.ingest.log_limits import EpochLimiter, LogLimiter
from tasklogs_server.ingest.messages import Limits
from tasklogs_server.ingest.session import SessionResources
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.ingest.upload import Uploads
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.reads.follower import Follows
from tasklogs_server.reads.pages import PageCache
from tasklogs_server.reads.reader import LogReader
from tasklogs_server.reads.state_checks import StateChecks
from tasklogs_server.services.task_logs import encode_answer
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.tasks.directory import TaskDirectory
from tasklogs_server.tasks.pace import Pace
from tasklogs_server.tasks.purge import Purge
from tasklogs_server.tasks.retention import Retention
from tasklogs_server.telemetry.observer import Observer


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one server. The composition root runs those that have work of their own."""

    store: Store
    bus: SharedBus
    group_commit: GroupCommit
    sessions: Sessions
    syncs_for_others: SyncsForOthers
    uploads: Uploads
    reader: LogReader
    follows: Follows
    tails: TailBudget
    pages: PageCache
    directory: TaskDirectory
    purge: Purge
    agent_tokens: AgentTokens
    retention: Retention


def service_of(
    settings: ServerSettings,
    store: Store,
    limits: ServerLimits,
    *,
    observer: Observer,
    clock: Callable[[], datetime],
) -> Service:
    """Build the parts on an open store. Nothing runs yet."""
    bus = bus_of(settings, store)
    log_limits = LogLimits(settings.log_entries, settings.log_bytes, settings.min_retention)
    log_limiter = LogLimiter(store.evictions, log_limits)
    resources = SessionResources(
        limits=Limits(settings.window_bytes, settings.append_bytes, MAX_CONTENT_BYTES),
        group_commit=GroupCommit(store.writes, bus, budget=limits.budget, observer=observer),
        budget=limits.budget,
        log_limiter=log_limiter,
        epoch_limiter=EpochLimiter(store.sessions, settings.epochs_per_hour),
        write_behind=WriteBehind(store.writes, store.generations),
        load_tail=store.sessions.tail_content,
        clock=clock,
        observer=observer,
    )
    tails = TailBudget(settings.tail_bytes)
    sessions = Sessions(
        resources,
        store=store.sessions,
        tasks=store.tasks,
        bus=bus,
        handshakes=limits.handshakes,
        tails=tails,
        generations=store.generations,
        circuit_breaker=store.circuit_breaker,
    )
    pace = Pace(lambda: store.connections["reads"].in_use)
    purge = Purge(store.purges, sessions, bus, pace=pace)
    pages = page_cache(settings.page_cache_bytes, store, bus)
    checks = StateChecks(store.states)
    syncs = Syncs(
        sessions,
        agent_wait=settings.agent_wait,
        sync_timeout=settings.sync_timeout,
        elsewhere=Elsewhere(
            bus,
            sessions,
            process_of=partial(process_of, checks, store),
            sync_timeout=settings.sync_timeout,
        ),
    )
    return Service(
        store=store,
        bus=bus,
        group_commit=resources.group_commit,
        sessions=sessions,
        syncs_for_others=SyncsForOthers(bus, sessions, sync=syncs.run, recent=syncs.recent_of),
        uploads=Uploads(
            resources,
            store=store.sessions,
            sessions=sessions,
            large_commits=LargeCommits(store.writes, bus, observer=observer),
            queue=limits.uploads,
            places=limits.upload_places,
        ),
        reader=LogReader(
            store.reads,
            checks,
            pages,
            sync=syncs.request,
            aside=limits.admission.aside,
            confirmed_at=resources.write_behind.confirmed_at,
            evicted=store.evictions.evicted,
            encode=encode_answer,
            is_current=store.is_current,
        ),
        follows=Follows(
            store.changes,
            bus,
            sync=syncs.request,
            lease=settings.lease,
            generations=store.generations,
            tails=tails,
        ),
        tails=tails,
        pages=pages,
        directory=TaskDirectory(store.tasks, sessions, bus, purge=purge),
        purge=purge,
        agent_tokens=AgentTokens(store.tasks, limits.handshakes),
        retention=Retention(
            evictions=store.evictions,
            retirements=store.retirements,
            purge=purge,
            log_limiter=log_limiter,
            limits=log_limits,
            period=settings.retention,
            pace=pace,
        ),
    )


async def process_of(checks: StateChecks, store: Store, task_id: UUID) -> tuple[UUID, int] | None:
    """Read which process has the task's session, and its fence. None: none has.

    After a gap of the bus all readers that wait for an agent ask this: one statement answers them.
    Raises StoreUnavailable.
    """
    try:
        state = await checks.state(TaskId(task_id, None))
    except TaskNotFound:
        return None
    if state is None:  # the rows of one of the tasks are bad or slow
        return await store.sessions.process_of(task_id)
    process, fence = state.stored.process, state.stored.fence
    return None if process is None else (process, fence)


def page_cache(limit_bytes: int, store: Store, bus: Bus) -> PageCache:
    """Build the cache of pages. The store decides: what it is told only spares questions."""
    pages = PageCache(limit_bytes)

    def note(note: Note) -> None:
        match note:
            case Moved(task_id, commit):
                if commit is not None:
                    pages.changed(task_id, commit.head.revision)
            case Deleted(task_id):
                pages.forget(task_id)
            case SessionBegan() | SessionDoubted() | BuildReported():
                pass
            case _:
                assert_never(note)

    bus.listen(note)
    # Another Postgres may answer next. Its versions are others; but no page of it is here.
    store.circuit_breaker.on_loss(pages.clear)
    store.generations.on_change(pages.clear)
    return pages
