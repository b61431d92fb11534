"""Writes the lines of a process's own log. A failure to log never ends its work, or stalls it.

The reader of a log may be away (EPIPE) or stand still, and its disk may be full (ENOSPC). What
cannot be written is lost, and counted.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

MAX_HELD_BYTES = 1024 * 1024
"""So much is held for a reader that is slow. What comes then is lost."""
_LAST_SECONDS = 1.0


class LogWriter:
    """Writes whole lines to a stream, in a thread of its own. `write` neither waits nor raises.

    `tell_of_lost` makes the line that says how many lines were lost, and why the last one was. It
    is written after the first lines that could be written again.
    """

    def __init__(self, stream: TextIO | None, tell_of_lost: Callable[[int, str], str]) -> None:
        self.stream = stream
        self._descriptor = _descriptor_of(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._tell_of_lost = tell_of_lost
        self._changed = threading.Condition()
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._is_writing = False
        self._lost = 0
        self._reason = ""
        self._is_in_a_line = False
        """Whether the last line was cut off."""
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Write `line`, or count it as lost."""
        self.write_all([line])

    # What structlog calls, by level.
    debug = info = warning = error = critical = write

    def write_all(self, lines: Sequence[str]) -> None:
        """Write lines that belong together."""
        encoded = [f"{line}\n".encode(self._encoding, "backslashreplace") for line in lines]
        if self.stream is None:  # the process was started without it
            return
        if self._descriptor is None:  # text in memory
            self._put(encoded)
            return
        size = sum(map(len, encoded))
        with self._changed:
            if self._held_bytes + size > MAX_HELD_BYTES:
                self._lost += len(encoded)
                self._reason = "its reader stands still"
                return
            self._lines += encoded
            self._held_bytes += size
            self._start()
            self._changed.notify_all()

    def flush(self, seconds: float = _LAST_SECONDS) -> None:
        """Wait at most so long until all lines are written, or lost."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._is_writing), seconds)

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a reader that stands still must not delay the end of the process.
            self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                lines, self._lines = self._lines, []
                self._is_writing = True
            self._put(lines)
            with self._changed:
                self._held_bytes -= sum(map(len, lines))

    def _put(self, lines: list[bytes]) -> None:
        reason = self._push(b"".join(lines))
        if reason is not None:
            with self._changed:
                self._lost += len(lines)
                self._reason = reason
        elif lost := self._lost:
            told = f"{self._tell_of_lost(lost, self._reason)}\n"
            if self._push(told.encode(self._encoding, "backslashreplace")) is None:
                with self._changed:
                    self._lost -= lost

    def _push(self, data: bytes) -> str | None:
        """Write `data`. Return why its end, or all of it, is lost."""
        if self._is_in_a_line:
            data = b"\n" + data
        try:
            while data:
                written = self._push_some(data)
                self._is_in_a_line = data[written - 1 : written] != b"\n"
                data = data[written:]
        except (OSError, ValueError) as error:
            if isinstance(error, BrokenPipeError):
                self._is_in_a_line = False  # the next reader knows nothing of that line
            return (error.strerror if isinstance(error, OSError) else None) or "it is closed"
        return None

    def _push_some(self, data: bytes) -> int:
        if self._descriptor is None:
            assert self.stream is not None
            self.stream.write(data.decode(self._encoding))
            self.stream.flush()
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            # Another program has made the descriptor non-blocking. Only this thread waits.
            select.select([], [self._descriptor], [])
            return 0


def _descriptor_of(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
