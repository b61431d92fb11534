"""The request id of each call in the metadata that the caller gets.

It is in the trailing metadata of every call, and in the initial metadata of a stream that has a
message. grpc.aio cannot send initial metadata of ours together with the first message. To send it
apart costs 6 % of the CPU time of a small read, and a stream pays that only once.
"""

from __future__ import annotations

from typing import Any

from tasklogs_server.middleware.handlers import Context
from tasklogs_server.telemetry.calls import REQUEST_ID, Call, current

Metadata = tuple[tuple[str, str], ...]


def current_request_id() -> str:
    """Return the id of the current call; empty outside of a call."""
    call = current()
    return "" if call is None else call.request_id


def metadata_of(call: Call | None) -> Metadata:
    """Return the metadata that tells a caller the id of its call."""
    return () if call is None else ((REQUEST_ID, call.request_id),)


class StreamContext:
    """gRPC's context of a call with a stream of responses; the first one follows the request id.

    Not sent before: once it has initial metadata, a client does not retry the call on its own.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, response: Any) -> None:
        """Send the first response. gRPC's own function, which costs less, sends the others."""
        await self._context.send_initial_metadata(metadata_of(current()))
        vars(self)["write"] = self._context.write
        await self._context.write(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
