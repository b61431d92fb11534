"""Names of what a server can do, so that clients and agents notice an older server.

`GetServerInfo` has all of them, `Welcome` those of the agent stream. A name stays when it is
released: a peer that finds it missing does without the fields that belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence

CONTENT_DELTA_PIECES = "content_delta_pieces"
"""`ContentDelta` may have several pieces, in appends and in follows."""
ENTRY_NAMES = "entry_names"
"""Entries have `source_id`, `name` and `call_id`."""
TYPES_FILTER = "types_filter"
"""GetTaskLogs and FollowTaskLogs accept `types`."""
TASK_LABELS = "task_labels"
"""Tasks have `labels`, ListTasks filters by them, and UpdateTask changes them."""
CREATE_REQUEST_ID = "create_request_id"
"""CreateTask accepts `request_id`: a repeated call returns the same task."""
UPLOAD_ENTRIES = "upload_entries"
"""UploadLogSnapshot accepts `SNAPSHOT_FORMAT_ENTRIES`."""
UPLOAD_PARTS = "upload_parts"
"""The server has UploadLogSnapshotInParts."""
PROGRESS_INTERVAL = "progress_interval"
"""FollowTaskLogs accepts `progress_interval`."""

AGENT_STREAM: Sequence[str] = (CONTENT_DELTA_PIECES, ENTRY_NAMES)
"""What `Welcome.features` and the `Hello.features` of this agent have."""
ALL: Sequence[str] = (
    *AGENT_STREAM,
    TYPES_FILTER,
    TASK_LABELS,
    CREATE_REQUEST_ID,
    UPLOAD_ENTRIES,
    UPLOAD_PARTS,
    PROGRESS_INTERVAL,
)
"""What `GetServerInfoResponse.features` has."""
