"""A terminal that understands what TaskLogs prints: CR, LF, tabs, cursor up, erase."""

from __future__ import annotations

import re

from rich.cells import get_character_cell_size

_PIECE = re.compile(r"\x1b\[(\d*)([AJm])|([\s\S])")


class Terminal:
    """Shows `columns` x `lines`. `text()` is the screen and everything scrolled off it."""

    def __init__(self, columns: int, lines: int) -> None:
        self._columns = columns
        self._lines = lines
        self._rows: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self._wrapped: set[int] = set()
        """Rows that continue in the next row."""

    def feed(self, text: str) -> None:
        for match in _PIECE.finditer(text):
            number, command, character = match.groups()
            if command == "A":
                # The cursor cannot leave the screen.
                self._row = max(self._row - int(number or 1), len(self._rows) - self._lines, 0)
            elif command == "J":
                del self._rows[self._row + 1 :]
                del self._rows[self._row][self._column :]
                self._wrapped = {row for row in self._wrapped if row < self._row}
            elif character is not None:
                self._put(character)

    def text(self) -> str:
        """Return the text, with wrapped lines joined again."""
        shown = ""
        for number, row in enumerate(self._rows):
            shown += "".join(row) + ("" if number in self._wrapped else "\n")
        return shown.removesuffix("\n")

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._next_row()
        elif character == "\t":
            end = min((self._column // 8 + 1) * 8, self._columns - 1)
            if end > self._column:
                self._write("\t", end - self._column)
        else:
            cells = get_character_cell_size(character)
            if self._column + cells > self._columns:
                self._wrapped.add(self._row)
                self._next_row()
            self._write(character, cells)

    def _write(self, character: str, cells: int) -> None:
        row = self._rows[self._row]
        row += [" "] * (self._column - len(row))
        if cells == 0 and self._column:
            row[self._column - 1] += character
            return
        row[self._column : self._column + cells] = [character] + [""] * (cells - 1)
        self._column += cells

    def _next_row(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append([])
