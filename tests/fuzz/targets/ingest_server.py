"""The server's part for agents over a store in memory, with limits that short inputs reach."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import CommitRefused, TaskLogsError
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.large_commits import LargeCommits
from tasklogs_server.ingest.log_limits import EpochLimiter, LogLimiter
from tasklogs_server.ingest.messages import Limits
from tasklogs_server.ingest.session import SessionResources
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.upload import Uploads
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.limits.upload_places import UploadPlaces
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.middleware.error_table import status_of
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.store.generations import Generations
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tests.fuzz.targets.memory_store import MemoryStore
from tests.ingest.desk import Clock

TASK = UUID(int=1)
AGENT = Agent(TASK, hashlib.sha256(b"token").digest())

WINDOW_BYTES = 3000
INGEST_BYTES = 6000
_LOG = LogLimits(rows=50, bytes=3 * MAX_CONTENT_BYTES, min_retention=timedelta(days=1))
_EPOCHS_PER_HOUR = 6
_PATIENCE = timedelta(seconds=60)
# Trailers above 8 KB never reach the caller, and base64 makes them longer by a third.
_STATUS_BYTES = 6000
# Longer than any chain of waits inside the process.
_TURNS = 1000


@dataclass
class IngestServer:
    """What `app` builds for agents, without a socket."""

    store: MemoryStore
    clock: Clock
    budget: IngestBudget
    sessions: Sessions
    service: TaskAgentsService
    tails: TailBudget

    @classmethod
    @asynccontextmanager
    async def open(cls, *, standalone: bool) -> AsyncIterator[Self]:
        """Build it. At the end everything must have been released."""
        store: Any = MemoryStore(AGENT.token_hash, standalone=standalone)
        clock, budget, bus = Clock(), IngestBudget(INGEST_BYTES), LocalBus()
        generations = Generations()
        group_commit, log_limiter = GroupCommit(store, bus), LogLimiter(store, _LOG)
        handshakes = HandshakeQueue(2, _PATIENCE)
        resources = SessionResources(
            limits=Limits(WINDOW_BYTES, WINDOW_BYTES, MAX_CONTENT_BYTES),
            group_commit=group_commit,
            budget=budget,
            log_limiter=log_limiter,
            epoch_limiter=EpochLimiter(store, _EPOCHS_PER_HOUR),
            write_behind=WriteBehind(store, generations),
            load_tail=store.tail_content,
            clock=clock,
            monotonic=clock.monotonic,
        )
        tails = TailBudget(MAX_CONTENT_BYTES)
        sessions = Sessions(
            resources,
            store=store,
            tasks=store,
            bus=bus,
            handshakes=handshakes,
            generations=generations,
            tails=tails,
        )
        uploads = Uploads(
            resources,
            store=store,
            sessions=sessions,
            large_commits=LargeCommits(store, bus),
            queue=UploadQueue(
                at_work=2, queued_bytes=64 * 1024 * 1024, max_wait=timedelta(seconds=20)
            ),
            places=UploadPlaces(4),
        )
        service = TaskAgentsService(AgentTokens(store, handshakes), sessions, uploads)
        running = asyncio.create_task(group_commit.run())
        try:
            yield cls(store, clock, budget, sessions, service, tails)
            await _settled(budget)
            if store.broken:
                raise store.broken[0]
            assert budget.held_bytes == 0
            assert sessions.open_count == 0
            assert not store.is_connected, "every session that was open has been marked as lost"
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait([running])


async def _settled(budget: IngestBudget) -> None:
    """Wait for commits in progress: a locked head is retried soon."""
    for turn in range(_TURNS):
        if budget.held_bytes == 0:
            break
        await asyncio.sleep(0 if turn < 50 else 0.005)


def check_refusal(error: TaskLogsError) -> Status:
    """Return the status for the caller. It must be a documented one, fit, and not be INTERNAL."""
    status = status_of(error, "")
    assert status.code != code_pb2.UNKNOWN
    assert status.code != code_pb2.INTERNAL or isinstance(error, CommitRefused)
    assert status.ByteSize() <= _STATUS_BYTES
    return status
