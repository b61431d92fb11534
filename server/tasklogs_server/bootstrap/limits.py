"""What the whole server shares out: turns of calls, bytes of agents, handshakes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasklogs_server.limits.admission import Admission, Capacity
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.limits.upload_places import UploadPlaces
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.settings import ServerSettings

# An agent waits 15 s for its Welcome, and may have to wait for two turns: its token is checked in
# one, its stream opens in the other.
_HANDSHAKE_MAX_WAIT = timedelta(seconds=5)
# The sender still waits then, and no other call does.
_UPLOAD_MAX_WAIT = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of one server that all its callers share."""

    admission: Admission
    budget: IngestBudget
    handshakes: HandshakeQueue
    uploads: UploadQueue
    upload_places: UploadPlaces


def limits_of(settings: ServerSettings) -> ServerLimits:
    """Build the limits."""
    capacity = Capacity(
        reads=settings.reads,
        queued_reads=settings.queued_reads,
        queue_time=settings.store_wait,
        waiting_reads=settings.waiting_reads,
        writes=settings.writes,
        follows=settings.follows,
        agents=settings.agents,
    )
    return ServerLimits(
        Admission(capacity),
        IngestBudget(settings.ingest_bytes),
        HandshakeQueue(settings.handshakes, _HANDSHAKE_MAX_WAIT),
        UploadQueue(
            at_work=settings.uploads_at_work,
            queued_bytes=settings.queued_upload_bytes,
            max_wait=_UPLOAD_MAX_WAIT,
        ),
        UploadPlaces(settings.uploads),
    )
