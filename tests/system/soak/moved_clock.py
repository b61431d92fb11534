"""A wall clock that a fault can move: real time and the seconds that a file says.

    python -m tests.system.soak.moved_clock FILE serve --listen=...      # `tasklogs serve ...`

The server's is `app._now` alone: gRPC takes deadlines by Python's `time`, and its core would still
have the real one. Monotonic clocks stay as they are, as on any machine whose clock is set.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

_NANOSECONDS = 1_000_000_000


class MovedClock:
    """`file` is looked at each time; while it is missing the time is the real one."""

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
    """Let the processes that look at `file` be so far from real time, from now on."""
    written = file.with_suffix(".new")
    written.write_text(str(offset_seconds))
    written.replace(file)


def follow(file: Path) -> None:
    """Let the wall clock of this process, an agent or a task app, be the one of `file`."""
    clock = MovedClock(file)
    vars(time)["time_ns"] = clock.time_ns
    vars(time)["time"] = clock.time


def main(argv: list[str]) -> int:
    """Run `tasklogs serve` with all of `argv` but the first: the clock's file."""
    from tasklogs.cli.main import main as command
    from tasklogs_server import app

    vars(app)["_now"] = MovedClock(Path(argv[0])).now

    sys.argv = ["tasklogs", *argv[1:]]
    command()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
