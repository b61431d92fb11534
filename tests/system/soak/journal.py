"""Files in which a process records what it sent and received, one line each. No record is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""`t` is its time in seconds of CLOCK_MONOTONIC. The other fields depend on its kind."""


class Journal:
    """Appends records. It is unbuffered: a record survives a SIGKILL of the process that wrote it.

    CLOCK_MONOTONIC is the same for all processes of the machine. Faults of wall clocks leave it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def note(self, **fields: Any) -> float:
        """Add a record with the current time. Returns that time."""
        at = time.monotonic()
        line = json.dumps({"t": round(at, 6), **fields}, separators=(",", ":"))
        os.write(self._descriptor, line.encode() + b"\n")
        return at

    def close(self) -> None:
        os.close(self._descriptor)


def read_journal(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order. A missing file has none.

    Skips a line that is incomplete because of a SIGKILL during its write.
    """
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            try:
                record: Record = json.loads(line)
            except ValueError:
                continue
            yield record
