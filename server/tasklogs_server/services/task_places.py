"""Positions in a list of tasks, as page tokens."""

from __future__ import annotations

from uuid import UUID

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.reads.tokens import (
    TokenLayout,
    check_fingerprint,
    datetime_of,
    fingerprint,
    micros_of,
)
from tasklogs_server.store.tasks import NEWEST
from tasklogs_server.tasks.directory import ListPosition

_LAYOUT = TokenLayout(b"t", "q16s8s")


def token_of(place: ListPosition, request: pb.ListTasksRequest) -> str:
    """Return the token for the page that begins after `place`."""
    created_at, task_id = place
    return _LAYOUT.seal(micros_of(created_at), task_id.bytes, _fingerprint(request))


def place_of(request: pb.ListTasksRequest) -> ListPosition:
    """Return where the page begins.

    Raises InvalidFields if the token is damaged, or was given for other arguments.
    """
    if not request.page_token:
        return NEWEST
    micros, task_id, made_for = _LAYOUT.unseal(request.page_token, "page_token")
    check_fingerprint(made_for, _fingerprint(request))
    return datetime_of(micros), UUID(bytes=task_id)


def _fingerprint(request: pb.ListTasksRequest) -> bytes:
    arguments = pb.ListTasksRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    return fingerprint(arguments.SerializeToString(deterministic=True))
