"""What the service consists of: the parts that work on the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bootstrap.limits import ServerLimits
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.ingest.group_commit import Committer
from tasklogs_server.ingest.log_limits import Room
from tasklogs_server.ingest.messages import Limits
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.ingest.upload import Uploads
from tasklogs_server.reads.follower import Follows
from tasklogs_server.reads.reader import LogReader
from tasklogs_server.services.task_logs import encode_event
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.tasks.directory import TaskDirectory
from tasklogs_server.tasks.retention import Retention
from tasklogs_server.telemetry.observer import Observer


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one server. The composition root runs those that have work of their own."""

    store: Store
    committer: Committer
    sessions: Sessions
    uploads: Uploads
    reader: LogReader
    follows: Follows
    directory: TaskDirectory
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
    bus = LocalBus()
    committer = Committer(store.writes, bus, observer=observer)
    log_limits = LogLimits(settings.log_entries, settings.log_bytes, settings.min_retention)
    room = Room(store.evictions, log_limits)
    sessions = Sessions(
        store=store.sessions,
        tasks=store.tasks,
        writes=store.writes,
        committer=committer,
        bus=bus,
        budget=limits.budget,
        room=room,
        limits=Limits(settings.window_bytes, settings.append_bytes, MAX_CONTENT_BYTES),
        tail_bytes=settings.tail_bytes,
        handshakes=limits.handshakes,
        epochs_per_hour=settings.epochs_per_hour,
        clock=clock,
        circuit_breaker=store.circuit_breaker,
        observer=observer,
    )
    directory = TaskDirectory(store.tasks, sessions, bus)
    syncs = Syncs(sessions, agent_wait=settings.agent_wait, sync_timeout=settings.sync_timeout)
    return Service(
        store=store,
        committer=committer,
        sessions=sessions,
        uploads=Uploads(store.sessions, sessions, committer, limits.budget, room, clock=clock),
        reader=LogReader(
            store.reads,
            sync=limits.admission.setting_aside(syncs.sync),
            confirmed_at=sessions.confirmed_at,
            evicted=store.evictions.evicted,
            page_bytes=settings.page_bytes,
        ),
        follows=Follows(
            store.changes, bus, sync=syncs.sync, encode=encode_event, lease=settings.lease
        ),
        directory=directory,
        agent_tokens=AgentTokens(store.tasks, limits.handshakes),
        retention=Retention(
            evictions=store.evictions,
            tasks=store.tasks,
            directory=directory,
            room=room,
            limits=log_limits,
            period=settings.retention,
            bus=bus,
        ),
    )
