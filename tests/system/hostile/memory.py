"""The most memory that a server may take by its settings, and the most that it took."""

from __future__ import annotations

import re
from pathlib import Path

from tasklogs_server.domain.upload_limits import MAX_UPLOAD_BYTES, MAX_UPLOAD_ENTRIES
from tasklogs_server.limits.admission import Capacity
from tasklogs_server.middleware.methods import OWN_QUEUES
from tasklogs_server.services.agent_codec import MAX_ENTRIES
from tasklogs_server.settings import ServerSettings

MIB = 1024 * 1024
_IDLE_BYTES = 120_000_000
_STREAM_BYTES = 75_000
_ENTRY_BYTES = 550
_HEADERS_BYTES = 32 * 1024
_PENDING_CALL_BYTES = 17_000 + _HEADERS_BYTES
_BEGINNING_CALL_BYTES = 25_000 + _HEADERS_BYTES
_UPLOADED_ENTRY_BYTES = 600
_FULL_REQUESTS = 128
"""How many requests gRPC holds at most, in full, before they are handled."""
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)

# Small enough that what grows without bound is soon above the ceiling.
SMALL = {
    "ingest_bytes": 32 * MIB,
    "tail_bytes": 32 * MIB,
    "page_cache_bytes": 8 * MIB,
    "answer_bytes": 64 * MIB,
    "reads": 32,
    "uploads": 1,
    "uploads_at_work": 1,
    "queued_upload_bytes": 16 * MIB,
}


def ceiling(
    settings: ServerSettings, *, sending_agents: int, streams: int, large_appends: int = 0
) -> int:
    """Return the sum of the table of memory in docs/design.md, in bytes.

    `sending_agents`: agents that send appends. `large_appends`: those of them that send thousands
    of entries at once; no behaviour here does. `streams`: open agent streams, follows, watches and
    streams of reflection, of all callers.
    """
    reads = settings.reads * (settings.page_bytes + MIB)
    parts = MAX_UPLOAD_BYTES + MAX_UPLOAD_ENTRIES * _ENTRY_BYTES + 3 * settings.message_bytes
    return sum(
        (
            _IDLE_BYTES,
            3 * settings.ingest_bytes,
            sending_agents * (256 * 1024 + 2 * settings.append_bytes),
            large_appends * MAX_ENTRIES * _ENTRY_BYTES,
            settings.uploads * parts,
            settings.queued_upload_bytes,
            settings.uploads_at_work
            * (settings.message_bytes + MAX_ENTRIES * _UPLOADED_ENTRY_BYTES),
            settings.tail_bytes,
            settings.page_cache_bytes,
            settings.pending_calls * (len(OWN_QUEUES) + 1) * _PENDING_CALL_BYTES,
            Capacity().beginning * _BEGINNING_CALL_BYTES,
            _FULL_REQUESTS * settings.message_bytes,
            reads,
            2 * (settings.answer_bytes + reads),
            streams * _STREAM_BYTES,
        )
    )


def forget_peak(pid: int) -> None:
    """Let `peak_bytes` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """Return the most resident memory of a process since `forget_peak`, in bytes."""
    found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
