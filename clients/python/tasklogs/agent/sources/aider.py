"""What the blocks of Aider's chat history say (seen with 0.86.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tasklogs.agent.sources.aider_history import ChatHistory
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.agent.sources.transcript import Lines, Transcript
from tasklogs.log.continuation import Position
from tasklogs.log.entry import EntryType

_FILE = ".aider.chat.history.md"


class Aider(Transcript):
    """Reads the chat history of one directory. A start that restores nothing opens an epoch.

    The history has no times: an entry gets the agent's clock.
    """

    name = "aider"

    def chosen(self, transcript: Path | None) -> Path:
        """Return the chat history to read."""
        if transcript is None:
            return default_place(Path.cwd())
        # `Path.is_dir` raises what `os.path.isdir` does not.
        is_directory, is_file = os.path.isdir(transcript), os.path.isfile(transcript)  # noqa: PTH112, PTH113
        is_chat = is_file or (transcript.suffix == ".md" and not is_directory)
        return transcript if is_chat else transcript / _FILE

    def changed_ns(self, directory: Path) -> int | None:
        """Return when the chat history of `directory` last changed."""
        try:
            return default_place(directory).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def opened(self, path: Path) -> Lines:
        """Return what reads the chat history, and the history of inputs beside it."""
        self._history = ChatHistory(path)
        return self._history

    def starts(self, stored: Position) -> None:
        """Begin with the newest conversation, if nothing is stored."""
        self._history.begin(at_newest=stored.tail is None)

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what one block says."""
        match json.loads(line):
            case {"left_out": str(kind)}:
                return (LeftOut(kind),)
            case {"type": str(kind), "content": str(content), "again": bool(again)}:
                return (Record(EntryType[kind], content, replaces=again, grows=True),)
        return ()


def default_place(directory: Path) -> Path:
    """Return where Aider writes: in the root of the git repository, else in the directory."""
    roots = (one for one in (directory, *directory.parents) if (one / ".git").exists())
    return next(roots, directory) / _FILE
