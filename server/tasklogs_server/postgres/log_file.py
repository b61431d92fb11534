"""The log of Postgres: one file of bounded size, and the file before it."""

import os
import re
import shutil
from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024


class LogFile:
    """A log file that is rotated in place, because Postgres writes to an inherited descriptor.

    The descriptor appends: after a truncation the next line is at the start. Lines that are written
    between the copy and the truncation are lost. A pipe would lose none, but could block Postgres.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.rotate_if_full()
        self._begin_bytes = os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        """Return the descriptor, for stdout and stderr of a child."""
        return self._descriptor

    def rotate_if_full(self) -> None:
        """Move the content to NAME.1 if it is past the limit."""
        if os.fstat(self._descriptor).st_size > self._limit_bytes:
            previous = self.path.with_name(self.path.name + ".1")
            shutil.copyfile(self.path, previous)
            previous.chmod(0o600)
            os.ftruncate(self._descriptor, 0)
            self._begin_bytes = 0

    def last_complaint(self) -> str | None:
        """Return the last line that names an error, written since this object was created."""
        with self.path.open("rb") as file:
            file.seek(self._begin_bytes)
            lines = file.read(self._limit_bytes).decode("utf-8", "replace").splitlines()
        marks = ("FATAL:", "PANIC:", "error", "launch:", "not permitted")
        complaints = [
            line for line in lines if " LOG: " not in line and any(mark in line for mark in marks)
        ]
        # Without the time and the pid: the line becomes part of an error message.
        return (
            re.sub(r"^.*\] (?=FATAL:|PANIC:)", "", complaints[-1].strip()) if complaints else None
        )

    def close(self) -> None:
        """Close the descriptor of this process. Postgres has its own."""
        os.close(self._descriptor)
