"""Postgres' log: one file of bounded size, and the one before it."""

import os
import re
import shutil
from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024


class LogFile:
    """Postgres and its children write to an inherited descriptor, so the file is rotated in place.

    The descriptor appends: after a truncation the next line lands at the start again. Lines written
    between copy and truncation are lost; a pipe would lose none but could block Postgres.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.rotate_if_full()
        self._begin_bytes = os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        """The appending descriptor, for a child's stdout and stderr."""
        return self._descriptor

    def rotate_if_full(self) -> None:
        """Moves the content to NAME.1 when it has passed the limit."""
        if os.fstat(self._descriptor).st_size > self._limit_bytes:
            previous = self.path.with_name(self.path.name + ".1")
            shutil.copyfile(self.path, previous)
            previous.chmod(0o600)
            os.ftruncate(self._descriptor, 0)
            self._begin_bytes = 0

    def last_complaint(self) -> str | None:
        """The last line since this object was made that says what went wrong."""
        with self.path.open("rb") as file:
            file.seek(self._begin_bytes)
            lines = file.read(self._limit_bytes).decode("utf-8", "replace").splitlines()
        marks = ("FATAL:", "PANIC:", "error", "launch:", "not permitted")
        complaints = [
            line for line in lines if " LOG: " not in line and any(mark in line for mark in marks)
        ]
        # Without the time and pid in front: the line becomes part of an error message.
        return (
            re.sub(r"^.*\] (?=FATAL:|PANIC:)", "", complaints[-1].strip()) if complaints else None
        )

    def close(self) -> None:
        """Closes our descriptor; Postgres has its own."""
        os.close(self._descriptor)
