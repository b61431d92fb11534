"""Files to which a process adds what it said and heard, a line each; nothing written is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""`t`, its moment in seconds of CLOCK_MONOTONIC, and what its kind has."""


class Journal:
    """Appends records. Unbuffered: what was noted outlives a SIGKILL of the one who noted it.

    CLOCK_MONOTONIC is one clock for all processes of the machine, whatever faults do to others.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def note(self, **fields: Any) -> float:
        """Add a record of now; return its moment."""
        moment = time.monotonic()
        line = json.dumps({"t": round(moment, 6), **fields}, separators=(",", ":"))
        os.write(self._descriptor, line.encode() + b"\n")
        return moment

    def close(self) -> None:
        os.close(self._descriptor)


def read_journal(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; none where there is no file.

    A line that was torn by a SIGKILL in its write is passed over.
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
