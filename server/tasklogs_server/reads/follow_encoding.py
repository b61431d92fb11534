"""Encodes what a follow sends: one `tasklogs.v1.FollowTaskLogsResponse` per event.

No other module of this package builds messages of the API.
"""

from __future__ import annotations

import zlib
from typing import assert_never

from tasklogs import compression
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.reads.follow_events import (
    CaughtUp,
    FollowEvent,
    Progress,
    StatusChanged,
    TailSent,
)
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.records import EpochOpened, TailWithdrawn
from tasklogs_server.wire.deltas import content_delta
from tasklogs_server.wire.entries import encode_fields
from tasklogs_server.wire.enums import TASK_STATUS, status_detail
from tasklogs_server.wire.times import timestamp_of

_ENTRIES = 0x1A  # FollowTaskLogsResponse.entries: field 3, length-delimited


def encode_event(cursor: str, event: FollowEvent, *, as_delta: bool) -> bytes:
    """Return the encoded message with this cursor and event.

    `as_delta`: a change of the tail that has a delta is sent as that delta, not as the whole entry.
    """
    return pb.FollowTaskLogsResponse(cursor=cursor).SerializeToString() + _event(event, as_delta)


def encode_compressed(cursor: Cursor, event: FollowEvent, *, as_delta: bool) -> bytes:
    """Return the message for followers that set `compressed`.

    The event is compressed if that makes it much shorter. The cursor is an end. So this cannot be
    the first message of a stream.
    """
    encoded = _event(event, as_delta)
    short = compression.compressed(encoded)
    end = cursor.end
    message = pb.FollowTaskLogsResponse(
        cursor="" if end else cursor.encode(), cursor_end=end, compressed=short
    )
    return message.SerializeToString() + (encoded if short is None else b"")


def _event(event: FollowEvent, as_delta: bool) -> bytes:
    message = pb.FollowTaskLogsResponse()
    match event:
        case EntriesChanged(epoch, encoded):
            return _entries(epoch, encoded)
        case TailSent():
            if not as_delta or event.delta is None:
                return _entries(event.epoch, event.encoded)
            message.delta.epoch = event.epoch
            message.delta.id = event.head.id
            message.delta.base_revision = event.base_revision or 0
            message.delta.revision = event.revision
            message.delta.time.CopyFrom(timestamp_of(event.head.time))
            crc32 = zlib.crc32(event.content) if event.crc32 is None else event.crc32
            message.delta.content.CopyFrom(content_delta(event.delta, crc32))
        case TailWithdrawn():
            message.entry_withdrawn.epoch = event.epoch
            message.entry_withdrawn.id = event.id
            message.entry_withdrawn.revision = event.revision
        case EpochOpened():
            message.epoch_started.epoch = event.epoch
            message.epoch_started.revision = event.revision
        case StatusChanged(detail, task_id):
            message.status.status = TASK_STATUS.encode(detail.status)
            message.status.status_detail.CopyFrom(status_detail(detail))
            if task_id is not None:
                message.status.task_id = str(task_id)
        case CaughtUp():
            message.caught_up.SetInParent()
        case Progress():
            message.progress.SetInParent()
        case _:
            assert_never(event)
    return message.SerializeToString()


def _entries(epoch: int, encoded: bytes) -> bytes:
    entries = encoded + pb.Entries(epoch=epoch).SerializeToString()
    return encode_fields((_ENTRIES, len(entries))) + entries
