"""The session files below a directory, found again at each look without looking at every file.

Blocking calls: run them in a thread. A user's directory may hold thousands of old sessions.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEPTH = 6
_SETTLED_NS = 2_000_000_000
"""A directory that changed within this time of a look may change again without another time: some
file systems have whole seconds."""

SessionOf = Callable[[Path], str | None]
"""Returns the name of the session that a file belongs to; None: of none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file was at a look."""

    session: str
    changed_ns: int
    size: int


@dataclass(slots=True)
class _Directory:
    """What was in one directory. It is settled if only a new time can say that more has come."""

    changed_ns: int = -1
    is_settled: bool = False
    files: dict[Path, Seen] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)


class SessionTree:
    """A directory and all below it. Symbolic links are not followed."""

    def __init__(self, root: Path, session_of: SessionOf) -> None:
        self._root = root
        self._session_of = session_of
        self._known: dict[Path, _Directory] = {}

    def look(self, *, at_all_files: bool) -> dict[Path, Seen] | None:
        """Return all session files; None if nothing was looked at that is not known.

        Without `at_all_files` only files that are new, vanished or empty are found to be so. Raises
        OSError.
        """
        known, self._known = self._known, {}
        has_news = self._visit(self._root, 0, {} if at_all_files else known)
        if not has_news and len(self._known) == len(known):
            return None
        return {
            path: seen
            for directory in self._known.values()
            for path, seen in directory.files.items()
        }

    def _visit(self, path: Path, depth: int, known: dict[Path, _Directory]) -> bool:
        """Visit a directory and those in it. Returns whether any of them was listed."""
        try:
            # The operator's own way to the root may have links.
            status = path.lstat() if depth else path.stat()
            if not stat.S_ISDIR(status.st_mode):
                return False
            found = known.get(path)
            is_known = found and found.is_settled and found.changed_ns == status.st_mtime_ns
            if found is None or not is_known:
                found = self._listed(path, status.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False  # one of another user must not hide the others
        self._known[path] = found
        has_news = not is_known
        if depth < MAX_DEPTH:
            for name in found.directories:
                has_news |= self._visit(path / name, depth + 1, known)
        return has_news

    def _listed(self, path: Path, changed_ns: int) -> _Directory:
        listed = _Directory(changed_ns, time.time_ns() - changed_ns > _SETTLED_NS)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    listed.directories.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    self._note(entry, listed)
        return listed

    def _note(self, entry: os.DirEntry[str], listed: _Directory) -> None:
        file = Path(entry.path)
        session = self._session_of(file)
        if session is None:
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            listed.is_settled = False
            return
        listed.files[file] = Seen(session, status.st_mtime_ns, status.st_size)
        if not status.st_size:
            listed.is_settled = False  # it becomes a session with its first line
