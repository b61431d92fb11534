"""Shortens entries on a terminal: tool calls, what they return, and notices.

These can be a thousand lines between two sentences of the conversation.
"""

from __future__ import annotations

from dataclasses import replace
from os.path import commonprefix

from rich.cells import get_character_cell_size

from tasklogs.cli.render.terminal_text import one_line, visible
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import EntryChange
from tasklogs.enums import TaskLogType

LINES = 5
"""How many lines of a result or a notice are shown."""
MORE = "… (more with -v)"
_CUT = "…"
_SHORTENED = frozenset({TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT, TaskLogType.NOTICE})
_CHARACTERS_PER_CELL = 8
"""A letter can have six combining marks, which take no cell; further ones are escaped."""
_TAB_CELLS = 8
_LEAST_COLUMNS = 20


def is_one_line(type_: int) -> bool:
    """Whether a short entry of this type is one line with its heading."""
    return type_ == TaskLogType.TOOL_CALL


def short(type_: int, heading: str, content: str, columns: int) -> str:
    """Return `content` as a terminal of `columns` shows it: escaped, and of some types shortened.

    A tool call begins with its heading. Growth of the content is growth of the result, if possible.
    """
    columns = max(columns, _LEAST_COLUMNS)
    match type_:
        case TaskLogType.TOOL_CALL:
            line = one_line(content[: columns * _CHARACTERS_PER_CELL])
            return _fitted(f"{heading}: {line}" if line else heading, columns)
        case TaskLogType.TOOL_RESULT | TaskLogType.NOTICE:
            return _first_lines(content, columns)
    return content


def _first_lines(content: str, columns: int) -> str:
    beginning = content[: LINES * columns * _CHARACTERS_PER_CELL]
    lines = visible(beginning).split("\n")
    shown = [_fitted(line, columns) for line in lines[:LINES]]
    if any(lines[LINES:]) or len(lines) > LINES + 1 or len(beginning) < len(content):
        shown.append(MORE)
    elif len(lines) > LINES:
        shown.append("")
    return "\n".join(shown)


def _fitted(line: str, columns: int) -> str:
    """Return what fits in a row; of a longer line the beginning, and a mark."""
    left = columns - 1
    for index, character in enumerate(line):
        left -= _cells(character)
        if left < 0:
            return line[:index] + _CUT
    return line


def _cells(character: str) -> int:
    """Return the most cells that a terminal needs for it."""
    match character:
        case "\t":
            return _TAB_CELLS
        case "\ufe0f":  # it can make the character before it an emoji, of two cells
            return 1
    return get_character_cell_size(character)


class BriefFollow:
    """Shortens the entries of a follow, one after another."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._heading = self._shown = ""

    def begin(self, change: EntryChange, heading: str) -> EntryChange:
        """Shorten a new entry. `heading` stays that of the entry, however it changes."""
        self._heading = heading
        if change.entry.type not in _SHORTENED:
            return change
        entry = self._short(change.entry)
        return replace(change, entry=entry, appended=entry.content)

    def next(self, change: EntryChange) -> EntryChange:
        """Shorten a change of the entry that `begin` was given last."""
        if change.entry.type not in _SHORTENED:
            return change
        before = self._shown
        entry = self._short(change.entry)
        kept = len(commonprefix((before, entry.content)))  # noqa: RUF071 - of characters
        appended = entry.content[kept:] if kept == len(before) else None
        return replace(change, entry=entry, kept=kept, appended=appended)

    def _short(self, entry: LogEntry) -> LogEntry:
        self._shown = short(entry.type, self._heading, entry.content, self._columns)
        return replace(entry, content=self._shown)
