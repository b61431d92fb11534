"""Prints a follow on a terminal, where the last entry grows in place.

Growth is appended. If printed text changes, it is redrawn from the changed line on while that line
is on the screen. Otherwise the entry is printed once more from that line on, and marked.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from rich.cells import get_character_cell_size

from tasklogs.cli.render.follow_text import FollowText
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write
from tasklogs.cli.render.terminal_text import undecided, visible
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import EntryChange

_TAB = 8
_REPRINT_PAUSE_SECONDS = 2.0
"""The shortest time between two reprints of an entry that changes above the screen's top."""


class ScreenText(FollowText):
    """Prints on the terminal of stdout, which must understand ANSI cursor movement."""

    def __init__(
        self,
        task: str,
        *,
        size: Callable[[], os.terminal_size] | None = None,
        clock: Callable[[], float] = time.monotonic,
        from_the_start: bool = True,
        tidied: bool = False,
        columns: int | None = None,
    ) -> None:
        super().__init__(task, from_the_start=from_the_start, tidied=tidied, columns=columns)
        self._size = size or _size_of_stdout
        self._clock = clock
        self._entry: LogEntry | None = None
        """The open entry, as the last event had it."""
        self._printed = ""
        """The content that the screen shows: all but what more text may escape or not."""
        self._anchor = 0
        """Only the text after this character can be redrawn: other text is above it, or the screen
        had another size."""
        self._drawn_at = os.terminal_size((0, 0))
        self._kept: int | None = None
        """If a reprint is due: how many leading characters of `printed` it may leave out."""
        self._reprinted_at = float("-inf")
        self._interrupted = False
        """Whether a notice was printed below the open entry."""

    def notice(self, message: str) -> None:
        """Print a line on stderr; if that is the same screen, end the current line first."""
        if self._open is not None and not self._interrupted and sys.stderr.isatty():
            self._end_line()
            self._interrupted = True
            self._anchor = len(self._printed)
        print_notice(message)

    def _begin(self, entry: LogEntry) -> None:
        self._write_heading(entry)
        self._draw(entry.content, 0)
        self._entry, self._anchor = entry, 0

    def _change(self, change: EntryChange) -> None:
        content = change.entry.content
        if self._kept is None and change.appended is not None:
            self._grow(change.entry, content, change.appended)
        else:
            kept = change.kept if self._kept is None else min(self._kept, change.kept)
            self._rewrite(change.entry, content, min(kept, len(self._printed)))
        self._entry = change.entry

    def _pause(self) -> None:
        if self._kept is not None and self._entry is not None:
            self._reprint(self._entry, self._line_of(self._kept))

    def _end(self) -> None:
        self._pause()
        if not self._interrupted:
            # Nothing followed, so a carriage return at the end is a lone one: escape it.
            last = visible(self._content(), len(self._printed))
            self._write_content(last)
            if last or not self._printed.endswith("\n"):
                write("\n")
        write("\n")
        self._entry, self._interrupted = None, False

    def _grow(self, entry: LogEntry, content: str, appended: str) -> None:
        if not appended and content == self._content():
            return  # only its time has changed
        before = len(content) - len(appended)
        # If the front was dropped, all positions in the text move with it.
        lost = len(self._content()) - before
        start = max(0, len(self._printed) - lost)
        if self._interrupted:
            self._write_heading(entry, ", continued")
            self._interrupted, self._anchor = False, start
        elif self._size() != self._drawn_at:
            self._anchor = start
        else:
            self._anchor = max(0, self._anchor - lost)
        self._draw(content, start)

    def _rewrite(self, entry: LogEntry, content: str, kept: int) -> None:
        line = self._line_of(kept)
        size = self._size()
        up = self._rows_back_to(line, size)
        if up is not None:
            write(f"\r\x1b[{up}A\x1b[J" if up else "\r\x1b[J")
            self._kept = None
            self._draw(content, line)
        elif self._clock() - self._reprinted_at >= _REPRINT_PAUSE_SECONDS:
            self._reprint(entry, line)
        else:
            self._kept = kept

    def _rows_back_to(self, line: int, size: os.terminal_size) -> int | None:
        """Return how many rows above the cursor `line` begins; None if it cannot be redrawn."""
        if self._kept is not None or self._interrupted:
            return None
        if line < self._anchor or size != self._drawn_at:
            return None
        if len(self._printed) - line > size.columns * size.lines * 2:
            return None
        up = rows(visible(self._printed[line:]), size.columns) - 1
        return up if up < size.lines else None

    def _reprint(self, entry: LogEntry, line: int) -> None:
        if not self._interrupted:
            self._end_line()
            write("\n")
        self._interrupted, self._kept = False, None
        number = entry.content.count("\n", 0, line) + 1
        self._write_heading(entry, f", rewritten from line {number}" if line else ", rewritten")
        self._draw(entry.content, line)
        self._anchor, self._reprinted_at = line, self._clock()

    def _draw(self, content: str, start: int) -> None:
        # A carriage return at the end is kept back: growth may still bring its newline.
        end = len(content) - undecided(content)
        self._write_content(visible(content, start, end))
        self._printed = content[:end]
        self._drawn_at = self._size()

    def _line_of(self, position: int) -> int:
        return self._printed.rfind("\n", 0, position) + 1

    def _end_line(self) -> None:
        if not self._printed.endswith("\n"):
            write("\n")

    def _content(self) -> str:
        return "" if self._entry is None else self._entry.content


def _size_of_stdout() -> os.terminal_size:
    size = os.get_terminal_size(sys.stdout.fileno())
    # A terminal that does not know its size says 0.
    return os.terminal_size((size.columns or 80, size.lines or 24))


def rows(text: str, width: int) -> int:
    """Return how many rows `text` takes from the first column on, with long lines wrapped.

    After a final newline, the empty row with the cursor counts, too.
    """
    count, column = 1, 0
    for character in text:
        if character == "\n":
            count, column = count + 1, 0
        elif character == "\t":
            # A tab never wraps: it ends at the last column.
            column = max(column, min((column // _TAB + 1) * _TAB, width - 1))
        elif character != "\r":
            cells = get_character_cell_size(character)
            if column + cells > width:
                count, column = count + 1, 0
            column += cells
    return count
