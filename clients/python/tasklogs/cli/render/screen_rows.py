"""How many rows a text takes on a terminal."""

from __future__ import annotations

from rich.cells import get_character_cell_size

_TAB = 8


def rows(text: str, width: int) -> int:
    """Count the rows that `text` takes from the first column on, where long lines are wrapped.

    A text that ends with a newline takes the empty row behind it, where the cursor stands, too.
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
