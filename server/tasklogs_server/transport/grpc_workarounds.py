"""What gRPC has no API for, and how it is done here all the same.

`check` says at start which of these do not work in this process. The server goes on without them.
grpcio is held to the minor versions that were tested (pyproject.toml).

`CallAcceptor` (`transport/call_acceptor.py`)
    grpc.aio accepts one call after the other, and does not know their callers.
`reset_calls`
    grpc.aio cannot reset a stream whose response is being sent. To cancel the handler leaves call,
    response and stream to the peer, for as long as its connection lasts. (Read in the source of
    grpcio 1.85, `src/python/grpcio/grpc/_cython/_cygrpc/aio/server.pyx.pxi`; no issue is known.)
`drop_new_connections`, `close_connections`
    gRPC's own stop answers calls that it has received, and not handed to a handler yet, with
    CANCELLED (https://github.com/grpc/grpc/issues/41785). Callers do not take that for "try
    again", and under load there are always some. If the connection ends they get UNAVAILABLE, and
    try another server.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from tasklogs_server.middleware.handlers import Call
from tasklogs_server.transport import call_acceptor

# The coroutine function of grpc.aio's task that waits for the end of a call.
_WAITS_FOR_THE_END = "_schedule_rpc_coro"

_OWN_FILES = Path("/proc/self/fd")
_SO_ATTACH_FILTER = 26
# One instruction of a socket filter, `ret 0`: no packet passes. If its listening socket were
# closed, gRPC would complain on stderr. It does not notice the filter.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)

_log = structlog.get_logger(__name__)


def check(port: int) -> None:
    """Log once which workarounds are missing, and what follows; `port` is bound."""
    for workaround, consequence in _missing(port).items():
        _log.warning("grpc.workaround_missing", workaround=workaround, consequence=consequence)


def _missing(port: int) -> Mapping[str, str]:
    found = {}
    if not call_acceptor.is_possible():
        found["CallAcceptor"] = (
            "new calls wait in one line, so that one caller can delay all others"
        )
    cygrpc = importlib.import_module("grpc._cython.cygrpc")
    if not hasattr(cygrpc, _WAITS_FOR_THE_END):
        found["reset_calls"] = (
            "responses that their callers do not read are held until the connection ends"
        )
    if not any(_listens(one) for one in _sockets_of(port)):
        found["close_connections"] = (
            "when the server stops, calls that no handler has seen end with CANCELLED,"
            " which clients do not retry"
        )
    return found


def reset_calls(calls: Collection[Call]) -> None:
    """Reset the streams of these calls, whatever is being sent. Looks at all tasks once.

    When both the handler's task and the one that waits for the call's end are cancelled, gRPC
    resets the stream. It lets go of the last call of a server only when the next one comes.
    """
    # When a call has just ended, gRPC's task may not have seen it yet, and would log an error.
    wanted = frozenset(call for call in calls if not call.done())
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        if getattr(coroutine, "__name__", None) != _WAITS_FOR_THE_END:
            continue
        # Its only reference to the handler's task is a variable of compiled code.
        held = gc.get_referents(*gc.get_referents(coroutine))
        if any(one in wanted for one in held if isinstance(one, asyncio.Task)):
            task.cancel()
    for call in wanted:
        call.cancel()


def drop_new_connections(port: int) -> None:
    """Drop every packet of a new TCP connection to our `port`.

    Otherwise peers whose connection is closed would be back at once. Connections that are being
    opened are accepted within a moment. This works on Linux only: elsewhere a process cannot list
    its own sockets, and this does nothing, as `close_connections` does.
    """
    code = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
    program = struct.pack("HP", 1, ctypes.addressof(code))
    for one in _sockets_of(port):
        if _listens(one):
            with suppress(OSError):  # where it is forbidden, some peers come back too soon
                one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def close_connections(port: int) -> None:
    """End all TCP connections to our `port`. What was written before is delivered."""
    for one in _sockets_of(port):
        if not _listens(one):
            with suppress(OSError):  # the peer has closed it already
                one.shutdown(socket.SHUT_RDWR)


def _sockets_of(port: int) -> Iterator[socket.socket]:
    """Yield a copy of each socket of this process on `port`; gRPC does not give us its own.

    One after the other: copies of all might be more files than the process may open.
    """
    for file in list(_OWN_FILES.iterdir()) if _OWN_FILES.is_dir() else ():
        with suppress(OSError):  # closed meanwhile
            if not str(file.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as one:
                if _port_of(one) == port:
                    yield one


def _port_of(one: socket.socket) -> int | None:
    if one.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    port: int = one.getsockname()[1]
    return port


def _listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
