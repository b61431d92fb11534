"""What a scripted server says of itself when the script does not say it."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from tasklogs import features
from tasklogs.v1 import task_logs_pb2 as pb


def unscripted_info(request: Message, script: Sequence[object]) -> pb.GetServerInfoResponse | None:
    """Return a response with all features, if the client asks on its own.

    None: the request is another one, or the next answer of the script is for it.
    """
    if not isinstance(request, pb.GetServerInfoRequest):
        return None
    following = script[0] if script else None
    if following is not None and not isinstance(following, Message):
        return None
    if isinstance(following, pb.GetServerInfoResponse):
        return None
    return pb.GetServerInfoResponse(version="0.1.0", features=features.ALL)
