"""The socket between the supervisor and one worker: JSON objects, one per line.

The supervisor's first message is the worker's settings, so that no password shows in `ps` or in a
file. It sends no other order than a question for metrics. When the worker reads the end of the
input, the supervisor has asked it to stop, or has died: both mean to drain.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any, Self

# The metrics of a worker are some 200 KB.
_MAX_LINE_BYTES = 16 * 1024 * 1024
# A peer that does not read must not make this process grow.
_MAX_UNSENT_BYTES = 1024 * 1024

Message = Mapping[str, Any]


class Channel:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._has_ended = False

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """Use this end from now on. It is closed with the channel."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MAX_LINE_BYTES))

    @property
    def unsent_bytes(self) -> int:
        """What the peer has not read yet, without what the kernel holds."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send soon. What the peer does not read is dropped; so is what no peer is there for."""
        if not self._is_closed and self.unsent_bytes < _MAX_UNSENT_BYTES:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """Return the next message. None: the peer has ended, or sends no more."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):  # cut off by the end of the peer
            return None
        message: Message = json.loads(line)
        return message

    def end(self) -> None:
        """Send no more. The peer reads the end of the input."""
        if not self._is_closed:
            self._has_ended = True
            self._writer.write_eof()

    @property
    def _is_closed(self) -> bool:
        return self._has_ended or self._writer.transport.is_closing()

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()
