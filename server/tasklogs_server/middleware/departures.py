"""Peers that leave in the middle of a call."""

from __future__ import annotations

import grpc
import grpc.aio


def is_of_a_peer_that_left(error: BaseException | None) -> bool:
    """Whether gRPC could not send because nobody is there any more.

    It raises that before it cancels the call. Any peer can cause it as often as it likes, and so
    could fill a log with it.
    """
    return isinstance(error, grpc.aio.InternalError)
