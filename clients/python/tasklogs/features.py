"""Names of what a server can do, so that clients and agents notice an older server.

`GetServerInfo` has all of them, `Welcome` those of the agent stream. A name stays when it is
released: a peer that finds it missing does without the fields that belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

CONTENT_DELTA_PIECES = "content_delta_pieces"
ENTRY_NAMES = "entry_names"
COMPRESSED_MESSAGES = "compressed_messages"
TYPES_FILTER = "types_filter"
TASK_LABELS = "task_labels"
CREATE_REQUEST_ID = "create_request_id"
UPLOAD_ENTRIES = "upload_entries"
UPLOAD_PARTS = "upload_parts"
PROGRESS_INTERVAL = "progress_interval"

AGENT_STREAM: Sequence[str] = (CONTENT_DELTA_PIECES, ENTRY_NAMES, COMPRESSED_MESSAGES)
"""What `Welcome.features` and the `Hello.features` of this agent have."""

ALL: Mapping[str, str] = MappingProxyType(
    {
        CONTENT_DELTA_PIECES: "The tail may change by a `ContentDelta`, of one or more pieces.",
        ENTRY_NAMES: "Entries have `source_id`, `name` and `call_id`.",
        COMPRESSED_MESSAGES: (
            "Agents may send messages as `CompressedMessage`, and follows may ask for them."
        ),
        TYPES_FILTER: "GetTaskLogs and FollowTaskLogs accept `types`.",
        TASK_LABELS: "Tasks have `labels`, ListTasks filters by them, and UpdateTask changes them.",
        CREATE_REQUEST_ID: "CreateTask accepts `request_id`: a repeat returns the same task.",
        UPLOAD_ENTRIES: "UploadLogSnapshot accepts `SNAPSHOT_FORMAT_ENTRIES`.",
        UPLOAD_PARTS: "The server has UploadLogSnapshotInParts.",
        PROGRESS_INTERVAL: "FollowTaskLogs accepts `progress_interval`.",
    }
)
"""What `GetServerInfoResponse.features` has, and what each name means."""
