"""The server's limits, by the names that operators see."""

from enum import StrEnum


class Limit(StrEnum):
    """A limit for which calls are refused or ended. If it has a setting, it has that name."""

    REQUEST_TIMEOUT = "request_timeout"
    ANSWER_TIMEOUT = "answer_timeout"
    ANSWER_BYTES = "answer_bytes"
    DEFAULT_DEADLINE = "default_deadline"

    CALLS_PER_SECOND = "calls_per_second"
    AGENT_CONNECTS_PER_SECOND = "agent_connects_per_second"
    STREAMS_PER_CALLER = "streams_per_caller"
    HEALTH_WATCHES = "health_watches"
    REFLECTION_STREAMS = "reflection_streams"
    """Streams of server reflection at the same time, of one caller or of all."""

    BEGINNING = "beginning"
    """Calls that wait for their turn to begin: there are too many, and this caller has the most."""
    READS = "reads"
    """All read slots are in use, and the queue is full or the call waited in it too long."""
    LISTS = "lists"
    """Lists of tasks at the same time, of one caller or of all: this one waited too long."""
    WAITING_READS = "waiting_reads"
    WRITES = "writes"
    FOLLOWS = "follows"
    AGENTS = "agents"
    UPLOADS = "uploads"
    """Uploads in parts: too many at the same time. Uploads: more than one of a task."""
    UPLOADS_AT_WORK = "uploads_at_work"
    """An upload has waited too long for its turn to be decoded and stored."""
    QUEUED_UPLOAD_BYTES = "queued_upload_bytes"
    HANDSHAKES = "handshakes"
    STORE_WAIT = "store_wait"

    EPOCHS_PER_HOUR = "epochs_per_hour"
    LOG = "log"
    """`log_bytes` or `log_entries`, if no entry is older than `min_retention`."""
    APPEND_ENTRIES = "append_entries"
    ENTRY_BYTES = "entry_bytes"
    UPLOAD_SIZE = "upload_size"
    """The bytes or the entries of an upload."""


FIXED = frozenset(
    {
        Limit.BEGINNING,
        Limit.LISTS,
        Limit.REFLECTION_STREAMS,
        Limit.LOG,
        Limit.APPEND_ENTRIES,
        Limit.ENTRY_BYTES,
        Limit.UPLOAD_SIZE,
    }
)
"""The limits that have no setting, or more than one."""
