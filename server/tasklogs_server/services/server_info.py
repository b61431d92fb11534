"""What the server says about itself in `GetServerInfo`."""

from __future__ import annotations

from importlib.metadata import version

from tasklogs import features
from tasklogs.log.entry import EntryType
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.upload_limits import MAX_UPLOAD_BYTES
from tasklogs_server.reads.reader import MAX_PAGE_ROWS
from tasklogs_server.services.tasks import MAX_PAGE_SIZE
from tasklogs_server.settings import ServerSettings
from tasklogs_server.wire.times import duration


def server_info(settings: ServerSettings) -> pb.GetServerInfoResponse:
    """Return the response. It stays the same while the server runs."""
    return pb.GetServerInfoResponse(
        version=version("tasklogs"),
        features=features.ALL,
        entry_types=[types.TaskLogType.ValueType(one) for one in EntryType],
        limits=pb.GetServerInfoResponse.Limits(
            message_bytes=settings.message_bytes,
            entry_bytes=MAX_CONTENT_BYTES,
            page_entries=MAX_PAGE_ROWS,
            page_tasks=MAX_PAGE_SIZE,
            upload_bytes=MAX_UPLOAD_BYTES,
            default_deadline=duration(settings.default_deadline),
        ),
    )
