"""A file that another program writes: read forward by whole lines, whatever happens to the file.

Blocking calls: run them in a thread.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_LINE_BYTES = 8 * 1024 * 1024
"""A longer line is left out. Agents write lines of more than 100 KB."""
MAX_FILE_BYTES = 4 * 1024 * 1024 * 1024
"""Nothing is read past this place of a file."""
_CHUNK_BYTES = 256 * 1024
_SEEN_BYTES = 64
"""So much before the place is compared with each read: a file that was truncated and has grown past
the place would look unchanged."""


class Change(enum.Enum):
    """What happened to the file since the last look."""

    NONE = enum.auto()
    MISSING = enum.auto()
    """There is no file. What was read stays read: it may come back."""
    REFUSED = enum.auto()
    """It is no regular file, or a symbolic link that leads out of its directory."""
    MOVED = enum.auto()
    """Another file has taken its place, and begins with all that was read."""
    STARTED_OVER = enum.auto()
    """It was truncated, or another file has taken its place: reading begins at its start."""
    ENDED = enum.auto()
    """Nothing more can come: standard input was closed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `is_end`: there was no more at that moment."""

    lines: list[bytes]
    change: Change = Change.NONE
    is_end: bool = False
    too_long: int = 0
    """How many lines were left out, because they are too long."""


class Lines:
    """Cuts bytes into lines. The rest waits for its newline."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._skips = False

    def feed(self, chunk: bytes) -> tuple[list[bytes], int]:
        """Return the lines that are whole now, without newlines, and how many were too long."""
        first, *others = chunk.split(b"\n")
        lines: list[bytes] = []
        too_long = 0
        self._add(first)
        for piece in others:
            if self._skips:
                too_long += 1
            else:
                lines.append(bytes(self._rest))
            self._rest.clear()
            self._skips = False
            self._add(piece)
        return lines, too_long

    def end(self) -> list[bytes]:
        """Return the last line, which has no newline, if there is one."""
        rest = [] if self._skips or not self._rest else [bytes(self._rest)]
        self._rest.clear()
        self._skips = False
        return rest

    def _add(self, piece: bytes) -> None:
        if self._skips or len(self._rest) + len(piece) > self._max_bytes:
            self._skips = True
            self._rest.clear()
        else:
            self._rest += piece


class LineFile:
    """One path, and the file that is open at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The operator's own way to the directory may have links; what is in it may not lead out.
        self._root = path.parent
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._place = 0
        self._hash = hashlib.sha256()
        self._before = b""
        self._lines = Lines()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def start_over(self) -> None:
        """Let the next look begin at the file's start."""
        self.close()
        self._identity = None
        self._rewind()

    def look(self) -> Look:
        """Read on, at most some 256 KB. Raises OSError for what a file system may do."""
        found = self._found()
        if isinstance(found, Change):
            return self._last_of_old(found)
        if self._descriptor is None:
            return self._open(found)
        if found != self._identity:
            return self._replaced(found)
        if self._has_started_over():
            self._rewind()
            return Look([], Change.STARTED_OVER)
        return self._read()

    def _found(self) -> tuple[int, int] | Change:
        """Return the identity of the file that is at the path now."""
        try:
            status = os.lstat(self.path)
            if stat.S_ISLNK(status.st_mode):
                if not self._real().is_relative_to(os.path.realpath(self._root)):
                    return Change.REFUSED
                status = self._real().lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Change.MISSING
        if not stat.S_ISREG(status.st_mode):
            return Change.REFUSED
        return status.st_dev, status.st_ino

    def _real(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _open(self, found: tuple[int, int]) -> Look:
        descriptor = self._opened(found)
        if descriptor is None:
            return Look([])  # it changed meanwhile: look again
        self._descriptor, self._identity = descriptor, found
        if not self._place or self._begins_as_before(descriptor):
            return self._read()
        self._rewind()
        return Look([], Change.STARTED_OVER)

    def _opened(self, found: tuple[int, int]) -> int | None:
        # NONBLOCK: between the look and this, a pipe without a writer may have come.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._real(), flags)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) == found and stat.S_ISREG(status.st_mode):
                return descriptor
            os.close(descriptor)
        return None

    def _replaced(self, found: tuple[int, int]) -> Look:
        """Read the old file to its end, then turn to the one that took its place."""
        old = self._read()
        if old.lines or not old.is_end:
            return Look(old.lines, too_long=old.too_long)
        descriptor = self._opened(found)
        if descriptor is None:
            return Look([])
        self.close()
        self._descriptor, self._identity = descriptor, found
        if self._begins_as_before(descriptor):
            return Look([], Change.MOVED)
        rest = self._lines.end()
        self._rewind()
        return Look(rest, Change.STARTED_OVER)

    def _last_of_old(self, change: Change) -> Look:
        """The path has no file now; the one that was there may have had more."""
        if self._descriptor is not None:
            old = self._read()
            if old.lines or not old.is_end:
                return Look(old.lines, too_long=old.too_long)
            self.close()
        return Look([], change, is_end=True)

    def _read(self) -> Look:
        assert self._descriptor is not None
        most = min(_CHUNK_BYTES, MAX_FILE_BYTES - self._place)
        chunk = os.pread(self._descriptor, most, self._place) if most > 0 else b""
        self._place += len(chunk)
        self._hash.update(chunk)
        self._before = (self._before + chunk[-_SEEN_BYTES:])[-_SEEN_BYTES:]
        lines, too_long = self._lines.feed(chunk)
        return Look(lines, is_end=len(chunk) < most or most <= 0, too_long=too_long)

    def _has_started_over(self) -> bool:
        assert self._descriptor is not None
        before = os.pread(self._descriptor, len(self._before), self._place - len(self._before))
        return before != self._before

    def _begins_as_before(self, descriptor: int) -> bool:
        hasher = hashlib.sha256()
        place = 0
        while place < self._place:
            chunk = os.pread(descriptor, min(_CHUNK_BYTES, self._place - place), place)
            if not chunk:
                return False
            hasher.update(chunk)
            place += len(chunk)
        return hasher.digest() == self._hash.digest()

    def _rewind(self) -> None:
        self._place = 0
        self._hash = hashlib.sha256()
        self._before = b""
        self._lines = Lines()
