"""What the agents' own transcripts share: JSON lines, and a file for each session."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.line_file import LineFile
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut
from tasklogs.agent.sources.session_files import SessionFiles
from tasklogs.agent.sources.session_tree import SessionTree
from tasklogs.agent.sources.transcript import Lines, Transcript
from tasklogs.log import rfc3339
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Time

MOST_FILES = 200
"""So many files, the newest, are searched for a session of a directory."""
_MOST_LINES = 50
"""One of so many lines at the beginning of a file names its directory."""


class SessionTranscript(Transcript):
    """Reads one session file, or the newest one of a directory. A new session opens an epoch."""

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        """Raises UnusableSource."""
        self._clock = clock
        self._sessions: SessionFiles | None = None
        super().__init__(options, settings, clock)

    @abstractmethod
    def default_place(self) -> Path:
        """Return where the agent writes its sessions."""

    @abstractmethod
    def session_of(self, path: Path) -> str | None:
        """Return the name of the session that a file belongs to; None if to none."""

    @abstractmethod
    def directory_of(self, path: Path) -> object:
        """Return the directory in which the agent of a session ran; anything else if not known.

        Raises OSError.
        """

    @abstractmethod
    def found(self, said: Mapping[str, Any]) -> Iterable[Found]:
        """Return what the object of one line says."""

    def chosen(self, transcript: Path | None) -> Path:
        """Return the file or directory to read."""
        return self.default_place() if transcript is None else transcript

    def changed_ns(self, directory: Path) -> int | None:
        """Return when a session of `directory` last changed, if it is among the newest ones."""
        files = SessionTree(self.default_place(), self.session_of).look(at_all_files=True) or {}
        newest = sorted(files, key=lambda path: files[path].changed_ns, reverse=True)
        for path in newest[:MOST_FILES]:
            with suppress(OSError):  # one file must not hide the others
                if is_in(self.directory_of(path), directory):
                    return files[path].changed_ns
        return None

    def opened(self, path: Path) -> Lines:
        """Return what reads a session file, or those of a directory."""
        # `Path.is_dir` raises what `os.path.isdir` does not.
        is_directory, is_file = os.path.isdir(path), os.path.isfile(path)  # noqa: PTH112, PTH113
        if is_file or (path.suffix == ".jsonl" and not is_directory):
            return super().opened(path)
        self._sessions = SessionFiles(path, self.session_of, self._clock)
        return self._sessions

    def starts(self, stored: Position) -> None:
        """Begin with the session that the stored log can be of."""
        if self._sessions is not None:
            self._sessions.begin(None if stored.tail is None else stored.tail.time)

    def left(self, *, is_newer: bool) -> None:
        """Read a session later that is newer than the one that goes on."""
        if self._sessions is not None and is_newer:
            self._sessions.put_back()

    def resumes(self) -> None:
        """Read what was put back after this session."""
        if self._sessions is not None:
            self._sessions.take_up()

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what a line says."""
        if not line.strip():
            return ()
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return (LeftOut("no_json"),)
        return self.found(said) if isinstance(said, dict) else (LeftOut("no_object"),)


def is_in(found: object, directory: Path) -> bool:
    """Return whether `found` is the path of `directory`, or of one below it."""
    return isinstance(found, str) and Path(found).is_relative_to(directory)


def first_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the objects at the beginning of a file. Raises OSError."""
    file = LineFile(path)
    with closing(file):
        lines = file.look().lines
    for line in lines[:_MOST_LINES]:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            yield said


def id_of(said: Mapping[str, Any], key: str) -> str:
    """Return the id, or the name, that `said` has; empty if it has none, or no text."""
    value = said.get(key)
    return value if isinstance(value, str) else ""


def time_of(value: object) -> Time | None:
    """Return the time that a line has; None if it has none that can be read."""
    try:
        return rfc3339.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None
