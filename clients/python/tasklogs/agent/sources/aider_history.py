"""Aider's chat history, cut into blocks: what the user said, what Aider said, what it did.

Aider (seen with 0.86.2) escapes nothing in this file:

    # aider chat started at 2026-12-01 01:18:23

    > aider --model ...  (its own command line, which may hold keys)
    > Aider v0.86.2
    > Restored previous conversation history.

    #### What the user said.

    What the model said.

    > Tokens: 593 sent, 4 received.

A line of the user's or of Aider's own ends in two blanks. An answer is written when it is complete.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from tasklogs.agent.sources.line_file import Change, LineFile, Look
from tasklogs.log.entry import EntryType

INPUT_HISTORY = ".aider.input.history"
MOST_BLOCK_BYTES = 4 * 1024 * 1024
"""A longer block goes on in another entry."""
_MOST_START_BYTES = 4 * 1024 * 1024
"""A start has Aider's command line, in which a prompt of many lines may be."""
_START = re.compile(r"# aider chat started at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_VERSION = "> Aider v"
_RESTORED = "> Restored previous conversation history.  "
_INPUT = re.compile(r"####(?: (.*))?  ")
_NOTICE = re.compile(r">(?: .*)?  ")
_BLANK_INPUT = "<blank>"
"""What Aider writes where the user said nothing."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start of Aider that restores no conversation: another one begins."""


@dataclass(frozen=True, slots=True)
class Omitted:
    """Lines that are no entry."""

    kind: str


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are one entry. `again`: it is the block before, with more lines."""

    type: EntryType
    content: str
    again: bool = False


@dataclass(slots=True)
class _StartLines:
    """The lines of a start, and where Aider names its version."""

    lines: list[str]
    version_at: int | None = None
    size: int = 0

    def add(self, line: str) -> None:
        if self.version_at is None and line.startswith(_VERSION):
            self.version_at = len(self.lines)
        self.lines.append(line)
        self.size += len(line)


class Blocks:
    """Cuts the lines of a chat history into blocks. The last one may still grow."""

    def __init__(self, is_input: Callable[[str], bool]) -> None:
        """`is_input` says whether the user has entered a line."""
        self._is_input = is_input
        self._start: _StartLines | None = None
        """The lines of a start, which is not known yet to be one."""
        self._type: EntryType | None = None
        self._lines: list[str] = []
        self._size = 0
        self._blanks = 0
        """How many empty lines came last."""
        self._is_shown = False
        self._has_grown = False

    def add(self, line: str) -> Iterator[Start | Block | Omitted]:
        """Yield what is complete with this line."""
        if self._start is not None:
            yield from self._of_start(self._start, line)
        elif self._is_after_gap and _START.fullmatch(line):
            self._start = _StartLines([line])
        else:
            yield from self._of_conversation(line)

    def unfinished(self) -> Iterator[Block]:
        """Yield the last block, if it has grown since it was shown."""
        if self._type is not None and self._has_grown:
            yield Block(self._type, "\n".join(self._lines), self._is_shown)
            self._is_shown, self._has_grown = True, False

    @property
    def _is_after_gap(self) -> bool:
        return self._type is None or self._blanks > 0

    def _of_start(self, start: _StartLines, line: str) -> Iterator[Start | Block | Omitted]:
        """Wait for the end of what Aider says of itself: a resume is said there."""
        if start.version_at is None:
            is_open = not _START.fullmatch(line) and start.size < _MOST_START_BYTES
        else:
            is_open = line.startswith("> ")
        if is_open:
            start.add(line)
            return
        self._start = None
        if start.version_at is None:
            yield from self._not_begun(start.lines)
        else:
            yield from self._begun(start.lines, start.version_at)
        yield from self.add(line)

    def _begun(self, lines: list[str], version_at: int) -> Iterator[Start | Block | Omitted]:
        yield from self._close()
        if _RESTORED not in lines[version_at:]:
            yield Start()
        yield Omitted("command_line")
        for line in (lines[0].removeprefix("# "), *map(_said_by_aider, lines[version_at:])):
            yield from self._grow(EntryType.NOTICE, line, joins=self._type is not None)

    def _not_begun(self, lines: list[str]) -> Iterator[Start | Block | Omitted]:
        if len(lines) > 2 and not lines[1] and lines[2].startswith("> "):
            yield Omitted("start")  # for example `aider --models`
            return
        for line in lines:  # an answer may have such a line
            yield from self._of_conversation(line)

    def _of_conversation(self, line: str) -> Iterator[Block | Omitted]:
        if not line:
            self._blanks += 1
            return
        is_after_gap, kind = self._is_after_gap, self._type
        if (is_after_gap or kind is EntryType.INPUT) and (found := _INPUT.fullmatch(line)):
            said = found[1] or ""
            if said == _BLANK_INPUT:
                yield from self._close()
                yield Omitted("blank")
                return
            if not said.strip() or self._is_input(said):
                yield from self._grow(EntryType.INPUT, said, joins=not is_after_gap)
                return
        if (is_after_gap or kind is not EntryType.OUTPUT) and _NOTICE.fullmatch(line):
            joins = kind is EntryType.NOTICE and not is_after_gap
            yield from self._grow(EntryType.NOTICE, _said_by_aider(line), joins=joins)
            return
        yield from self._grow(EntryType.OUTPUT, line, joins=kind is EntryType.OUTPUT)

    def _grow(self, kind: EntryType, line: str, *, joins: bool) -> Iterator[Block]:
        size = self._size + self._blanks + len(line.encode()) + 1
        if joins and size <= MOST_BLOCK_BYTES:
            self._lines += [""] * self._blanks
            self._size = size
        else:
            yield from self._close()
            self._type, self._size = kind, len(line.encode())
        self._lines.append(line)
        self._blanks = 0
        self._has_grown = True

    def _close(self) -> Iterator[Block]:
        yield from self.unfinished()
        self._type, self._lines, self._size, self._blanks = None, [], 0, 0
        self._is_shown = self._has_grown = False


def _said_by_aider(line: str) -> str:
    return line.removesuffix("  ").removeprefix(">").removeprefix(" ")


class EnteredLines:
    """The lines that the user has entered, as the history of inputs has them."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._lines: set[str] = set()

    def read(self) -> None:
        """Read to the present end. Raises OSError."""
        while True:
            look = self._file.look()
            for line in look.lines:
                if line.startswith(b"+"):
                    entered = line[1:].decode(errors="replace").splitlines()
                    self._lines.update(one.rstrip() for one in entered)
            if look.is_end:
                return

    def has(self, line: str) -> bool:
        """Return whether the user has entered this line. Aider drops blanks at its end."""
        return line.rstrip() in self._lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ChatHistory:
    """Reads the blocks of a chat history, each as a line of JSON. Blocking calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = LineFile(path)
        self._entered = EnteredLines(path.with_name(INPUT_HISTORY))
        self._begins_at_newest = False
        self._unread: Look | None = None
        """What was read while the history of inputs could not be read."""
        self._looked = Look([])
        self._found: deque[Start | Block | Omitted] = deque()
        self._to_skip = 0
        """How many conversations are passed over."""
        self._blocks = Blocks(self._entered.has)
        self._has_blocks = False
        """Whether anything of this conversation was passed on."""

    def begin(self, *, at_newest: bool) -> None:
        """Start with the newest conversation of the file, or with the first."""
        self._begins_at_newest = at_newest

    def start_over(self) -> None:
        """Let the next look begin at the start."""
        self._file.start_over()
        self._unread = None
        self._found.clear()
        self._to_skip = 0
        self._begin_file()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._entered.close()

    def look(self) -> Look:
        """Read on. STARTED_OVER: another conversation begins. Raises OSError."""
        if self._begins_at_newest:
            self._to_skip = _starts(self._path)
            self._begins_at_newest = False
        if not self._found:
            self._read()
        rows: list[bytes] = []
        while self._found:
            if isinstance(self._found[0], Start) and self._has_blocks and rows:
                return Look(rows)
            found = self._found.popleft()
            if not isinstance(found, Start):
                if not self._to_skip:
                    self._has_blocks |= isinstance(found, Block)
                    rows.append(_row(found))
            elif self._to_skip:
                self._to_skip -= 1
            elif self._has_blocks:
                self._has_blocks = False
                return Look([], Change.STARTED_OVER)
        return replace(self._looked, lines=rows)

    def _read(self) -> None:
        self._unread = self._unread or self._file.look()
        # After the chat history: Aider writes what the user said into this one first.
        self._entered.read()
        self._looked, self._unread = self._unread, None
        for line in self._looked.lines:
            self._found += self._blocks.add(line.decode(errors="replace"))
        if self._looked.change is Change.STARTED_OVER:
            self._found += self._blocks.unfinished()
            self._begin_file()
        elif self._looked.is_end:
            self._found += self._blocks.unfinished()

    def _begin_file(self) -> None:
        self._blocks = Blocks(self._entered.has)
        self._has_blocks = False


def _starts(path: Path) -> int:
    """Return how many conversations begin in a file."""
    file, blocks, count = LineFile(path), Blocks(lambda _: False), 0
    with closing(file):
        while True:
            look = file.look()
            for line in look.lines:
                found = blocks.add(line.decode(errors="replace"))
                count += sum(isinstance(one, Start) for one in found)
            if look.is_end:
                return count


def _row(found: Block | Omitted) -> bytes:
    if isinstance(found, Omitted):
        return json.dumps({"left_out": found.kind}).encode()
    row = {"type": found.type.name, "content": found.content, "again": found.again}
    return json.dumps(row).encode()
