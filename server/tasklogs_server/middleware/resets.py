"""Resetting a call's stream, whatever of it is on its way.

grpc.aio has no way to do so: cancelling a handler whose answer is being sent leaves call, answer
and stream to the peer, for as long as the connection lasts. What holds them is the task that waits
for the call's end beside the handler's; when both are cancelled, gRPC resets the stream.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection
from typing import Any, TypeAlias

_Call: TypeAlias = "asyncio.Task[Any]"

# Of grpc.aio's task that waits for the end of a call.
_WAITS_FOR_THE_END = "_schedule_rpc_coro"


def reset(calls: Collection[_Call]) -> None:
    """Reset these calls, each given by its handler's task. Looks at all tasks once.

    The last call of a server is let go of when the next one comes.
    """
    wanted = frozenset(calls)
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        if getattr(coroutine, "__name__", None) != _WAITS_FOR_THE_END:
            continue
        # Its only reference to the handler's task is a variable of compiled code.
        held = gc.get_referents(*gc.get_referents(coroutine))
        if any(one in wanted for one in held if isinstance(one, asyncio.Task)):
            task.cancel()
    for call in calls:
        call.cancel()
