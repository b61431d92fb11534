"""A wall clock that a fault can shift: the real time plus the seconds in a file.

A server is given the clock as an argument. Its `time` module stays real: gRPC computes deadlines
with it, and gRPC's core uses the real clock anyway. Monotonic clocks stay, as on any machine whose
clock is set.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

_NANOSECONDS = 1_000_000_000


class MovedClock:
    """Reads `file` each time. If the file is missing, the time is the real one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_at = 0
        self._offset_seconds = 0.0
        self._real_ns = time.time_ns

    def time_ns(self) -> int:
        return self._real_ns() + int(self._offset() * _NANOSECONDS)

    def time(self) -> float:
        return self.time_ns() / _NANOSECONDS

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def _offset(self) -> float:
        try:
            changed_at = self._file.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._offset_seconds = float(self._file.read_text())
                self._read_at = changed_at
        except FileNotFoundError:
            return 0.0
        return self._offset_seconds


def move(file: Path, offset_seconds: float) -> None:
    """Shift the clock of all processes that use `file` by this offset from the real time."""
    written = file.with_suffix(".new")
    written.write_text(str(offset_seconds))
    written.replace(file)


def follow(file: Path) -> None:
    """Make the wall clock of this process, an agent or a task app, follow `file`."""
    clock = MovedClock(file)
    vars(time)["time_ns"] = clock.time_ns
    vars(time)["time"] = clock.time
