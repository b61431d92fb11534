"""Tells the task app's processes apart, by TCP connections that stay open."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError


class HasFileno(Protocol):
    """A socket, or asyncio's wrapper of one."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class ProcessWitness:
    """Numbers the task app's processes, from 1.

    It keeps an idle connection open, in addition to the event stream. While one of the two stays
    open, the process that accepted it is alive and still listens, so every response is from that
    process. Once both are closed, the next response is counted as one of another process.
    """

    def __init__(self, host: str, port: int, connect_timeout_seconds: float) -> None:
        self._address = (host, port)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._number = 0
        self._idle: socket.socket | None = None
        self._stream: HasFileno | None = None
        self._dialing = asyncio.Lock()

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def watch_stream(self, stream: HasFileno | None) -> None:
        """Use the socket of the event stream as a witness, too. None: use it no longer."""
        self._stream = stream

    async def number(self) -> int:
        """Return the number of the process that responds now. Raises TaskAppError if none does."""
        async with self._dialing:
            if self._idle is not None and is_open(self._idle):
                return self._number
            self.close()
            self._idle = await self._dial()
            if self._stream is None or not is_open(self._stream):
                self._number += 1
            return self._number

    def still(self, number: int) -> bool:
        """Whether all responses since `number()` returned `number` came from that process."""
        return self._number == number and self._idle is not None and is_open(self._idle)

    async def _dial(self) -> socket.socket:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                return await self._connect()
        except TimeoutError:
            raise TaskAppError(Fault.TIMEOUT, "connecting timed out") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name that cannot be one
            raise TaskAppError(Fault.DOWN, f"connecting failed: {reason(error)}") from None

    async def _connect(self) -> socket.socket:
        # A plain socket: an asyncio transport would notice the end of the connection later, and
        # `is_open` must see what the kernel knows now.
        loop = asyncio.get_running_loop()
        host, port = self._address
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError = ConnectionRefusedError()
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                await loop.sock_connect(connection, address)
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failure


def is_open(connection: HasFileno) -> bool:
    """Whether the kernel knows a non-blocking connection to be open.

    False if there are bytes to read, because the end may follow them.
    """
    try:
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    except OSError:
        return False
    with duplicate:
        try:
            duplicate.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False


def reason(error: BaseException) -> str:
    """Return the message of an operating system's error, without addresses."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
