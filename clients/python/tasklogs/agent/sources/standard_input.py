"""Lines from standard input, or from another open file that cannot be read twice.

`look` blocks for a moment at most, where the file is a pipe, a socket or a terminal.
"""

from __future__ import annotations

import os
import select

from tasklogs.agent.sources.line_file import Change, Lines, Look

_CHUNK_BYTES = 256 * 1024


class OpenFile:
    """An open file descriptor, read by lines until its end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lines = Lines()
        self._has_ended = False

    def look(self) -> Look:
        """Read what there is now."""
        if self._has_ended:
            return Look([], Change.ENDED, is_end=True)
        if not _is_readable(self.descriptor):
            return Look([], is_end=True)
        chunk = os.read(self.descriptor, _CHUNK_BYTES)
        if not chunk:
            self._has_ended = True
            return Look(self._lines.end(), Change.ENDED, is_end=True)
        lines, too_long = self._lines.feed(chunk)
        return Look(lines, too_long=too_long)

    def start_over(self) -> None:
        """Do nothing: what was read is gone."""

    def close(self) -> None:
        """Leave the descriptor to the process."""


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
