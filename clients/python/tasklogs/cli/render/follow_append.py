"""Prints a follow to a pipe or a file, where printed text cannot be changed.

Growth is printed as it comes. An entry that is rewritten is held back until it begins with the
printed text again, or seems final: another entry follows, the task is no longer active, nothing
came for 15 s, or the follow ends. Then it is printed once more, whole, and marked.
"""

from __future__ import annotations

from tasklogs.cli.render.follow_text import FollowText
from tasklogs.cli.render.stdout import write
from tasklogs.cli.render.terminal_text import CONTEXT, undecided, visible
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import EntryChange


class AppendedText(FollowText):
    """`on_terminal`: stdout is a terminal that cannot redraw, or must not."""

    def __init__(
        self,
        task: str,
        *,
        escaped: bool,
        on_terminal: bool,
        from_the_start: bool = True,
        tidied: bool = False,
        columns: int | None = None,
    ) -> None:
        super().__init__(task, from_the_start=from_the_start, tidied=tidied, columns=columns)
        self._escaped = escaped
        self._on_terminal = on_terminal
        self._printed = ""
        """The part of the open entry's content that was printed."""
        self._held_back: LogEntry | None = None
        self._recent, self._written = "", 0
        """The end of the text, and how much of it is printed. The rest is escaped or not, as more
        text follows."""

    def notice(self, message: str) -> None:
        """Print a line on stderr; if that is the same screen, end the current line first."""
        if self._on_terminal and self._open is not None and not self._printed.endswith("\n"):
            write("\n")
        super().notice(message)

    def _begin(self, entry: LogEntry) -> None:
        self._write_heading(entry)
        self._write(entry.content)
        self._printed = entry.content

    def _change(self, change: EntryChange) -> None:
        content = change.entry.content
        if self._held_back is None and change.appended is not None:
            self._write(change.appended)
        elif content.startswith(self._printed):
            self._write(content[len(self._printed) :])
        else:
            self._held_back = change.entry
            return
        self._printed, self._held_back = content, None

    def _pause(self) -> None:
        if self._held_back is not None:
            entry, self._held_back = self._held_back, None
            self._end_paragraph()
            self._write_heading(entry, ", rewritten")
            self._write(entry.content)
            self._printed = entry.content

    def _end(self) -> None:
        self._pause()
        self._end_paragraph()

    def _end_paragraph(self) -> None:
        self._write_content(visible(self._recent, self._written))
        self._recent, self._written = "", 0
        write("\n" if self._printed.endswith("\n") else "\n\n")

    def _write(self, text: str) -> None:
        if not self._escaped:
            write(text)
            return
        text, start = self._recent + text, self._written
        end = len(text) - undecided(text)
        self._write_content(visible(text, start, end))
        context = max(0, end - CONTEXT)
        self._recent, self._written = text[context:], end - context
