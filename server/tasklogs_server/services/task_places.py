"""Places in a list of tasks, as page tokens."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.reads.tokens import fingerprint, not_a_token, seal, unseal
from tasklogs_server.store.tasks import NEWEST
from tasklogs_server.tasks.directory import Place

_PLACE = struct.Struct(">cq16s8s")
_START = datetime(1970, 1, 1, tzinfo=UTC)


def token_of(place: Place, request: pb.ListTasksRequest) -> str:
    """Return the token for the page that begins after `place`."""
    created_at, task_id = place
    micros = (created_at - _START) // timedelta(microseconds=1)
    return seal(_PLACE.pack(b"t", micros, task_id.bytes, _fingerprint(request)))


def place_of(request: pb.ListTasksRequest) -> Place:
    """Return where the page begins.

    Raises InvalidFields where the token is broken, or was given for other arguments.
    """
    if not request.page_token:
        return NEWEST
    kind, micros, task_id, made_for = unseal(_PLACE, request.page_token, "page_token")
    if kind != b"t":
        raise not_a_token("page_token")
    if made_for != _fingerprint(request):
        raise InvalidFields(
            [FieldViolation("page_token", "was given for a request with other arguments")]
        )
    try:
        return _START + timedelta(microseconds=micros), UUID(bytes=task_id)
    except OverflowError:
        raise not_a_token("page_token") from None


def _fingerprint(request: pb.ListTasksRequest) -> bytes:
    arguments = pb.ListTasksRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    return fingerprint(arguments.SerializeToString(deterministic=True))
