"""Leaves out what a screen is padded with: blanks at the ends of lines, and lines of nothing else.

The answer of a terminal's agent is a copy of its screen: a few lines of text, and a thousand blank
ones.
"""

from __future__ import annotations

from dataclasses import replace

from tasklogs.client.events import EntryChange

BLANK_LINES = 3
"""How many blank lines in a row are shown; more are counted."""
_BLANKS = " \t\r"


def tidy(text: str) -> str:
    """Return `text` without blanks at the ends of lines, and with long runs of blank lines folded.

    Blank lines at the end are left out. If `text` grows, what is returned grows too, or stays the
    same.
    """
    shown: list[str] = []
    blank = 0
    *whole, last = text.split("\n")
    for line in whole:
        line = line.rstrip(_BLANKS)
        if not line:
            blank += 1
            continue
        shown += _run(blank), line, "\n"
        blank = 0
    last = last.rstrip(_BLANKS)
    if last:
        shown += _run(blank), last
    return "".join(shown)


def _run(count: int) -> str:
    return "\n" * count if count <= BLANK_LINES else f"… {count} blank lines\n"


class TidyFollow:
    """Tidies the entries of a follow, one after another."""

    def __init__(self) -> None:
        self._content = self._shown = ""

    def begin(self, change: EntryChange) -> EntryChange:
        """Tidy a new entry."""
        self._content, self._shown = change.entry.content, tidy(change.entry.content)
        entry = replace(change.entry, content=self._shown)
        return replace(change, entry=entry, appended=self._shown)

    def next(self, change: EntryChange) -> EntryChange:
        """Tidy a change of the entry that `begin` was given last."""
        before, content = self._shown, change.entry.content
        kept: int
        appended: str | None
        if change.appended is not None:
            kept, appended = len(before), self._growth(change.appended)
            self._shown = before + appended
            if len(content) - len(change.appended) < len(self._content):
                # Its front was dropped. What is shown must not grow without limit.
                self._shown = self._shown[-len(content) :]
        else:
            self._shown = tidy(content)
            kept = common_length(before, self._shown)
            appended = self._shown[kept:] if kept == len(before) else None
        self._content = content
        entry = replace(change.entry, content=self._shown)
        return replace(change, entry=entry, kept=kept, appended=appended)

    def _growth(self, appended: str) -> str:
        """Return by how much the tidy text grows."""
        # Of the text before, only the blanks at its end matter, and whether there is more.
        blanks = self._content[len(self._content.rstrip(f"{_BLANKS}\n")) :]
        stem = ("x" if self._shown else "") + blanks
        return tidy(stem + appended)[len(tidy(stem)) :]


def common_length(a: str, b: str) -> int:
    """Return how many characters `a` and `b` have in common at their start."""
    # Python compares slices far faster than it compares single characters in a loop.
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
