"""Closing the connections of a server from below.

gRPC's own stop answers a call that it has received and not handed to us yet with CANCELLED, which
callers do not take for "try again": under load there are always some. A connection that ends makes
them UNAVAILABLE, and callers go elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OWN_FILES = Path("/proc/self/fd")
_SO_ATTACH_FILTER = 26
# One instruction, `ret 0`: no packet passes. gRPC complains on stderr about a listener that is
# closed under it; of this it knows nothing.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


def let_nobody_in(port: int) -> None:
    """Drop every packet of a new TCP connection to our `port`: or who is cut off would be back.

    Those that are on their way are accepted within a moment. On Linux alone: elsewhere no process
    can list its own sockets, and this, like `hang_up`, does nothing.
    """
    code = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
    program = struct.pack("HP", 1, ctypes.addressof(code))
    for one in _sockets_of(port):
        if _listens(one):
            with suppress(OSError):  # a system that forbids it: some come back too soon
                one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def hang_up(port: int) -> None:
    """End all TCP connections to our `port`; what was written is delivered."""
    for one in _sockets_of(port):
        if not _listens(one):
            with suppress(OSError):  # its peer was faster
                one.shutdown(socket.SHUT_RDWR)


def _sockets_of(port: int) -> Iterator[socket.socket]:
    """Lend a copy of each socket of this process; gRPC does not lend its own.

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
