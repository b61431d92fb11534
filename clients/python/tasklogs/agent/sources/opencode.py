"""What OpenCode's database says (seen with 1.18.33)."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.line_file import MAX_LINE_BYTES, Change, Look
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.agent.sources.session_files import QUIET_SECONDS
from tasklogs.agent.sources.session_transcript import is_in
from tasklogs.agent.sources.transcript import Lines, Transcript
from tasklogs.log.continuation import Position
from tasklogs.log.entry import EntryType, Names, Time

_BUSY_SECONDS = 2.0
_MOST_ROWS = 500
_MOST_BYTES = 1024 * 1024
"""So much, and one more part, is read at once."""
_YEAR_10000_MS = 253_402_300_800_000
_SESSIONS = """
    SELECT id, time_updated FROM session WHERE parent_id IS NULL AND time_updated >= :since
    ORDER BY time_updated, id
"""
_LAST_MESSAGES = "SELECT session_id, max(id) FROM message GROUP BY session_id"
_LAST_MESSAGE = "SELECT max(id) FROM message WHERE session_id = :session"
_DIRECTORIES = "SELECT directory, time_updated FROM session WHERE parent_id IS NULL"
_PARTS = """
    SELECT message.id, iif(length(message.data) <= :longest, message.data, NULL),
        part.id, iif(length(part.data) <= :longest, part.data, NULL),
        EXISTS (
            SELECT 1 FROM message AS later
            WHERE later.session_id = :session AND later.id > message.id
        )
    FROM message JOIN part ON part.message_id = message.id
    WHERE message.session_id = :session AND (message.id, part.id) > (:message, :part)
    ORDER BY message.id, part.id LIMIT :most
"""


class OpenCode(Transcript):
    """Reads the newest session of a database. A new session opens an epoch."""

    name = "opencode"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        super().__init__(options, settings, clock)
        self._thoughts = options.thoughts

    def chosen(self, transcript: Path | None) -> Path:
        """Return the database to read."""
        if transcript is not None:
            return transcript
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return Path(data) / "opencode" / "opencode.db"

    def changed_ns(self, directory: Path) -> int | None:
        """Return when a session of `directory` last changed."""
        path = self.chosen(None)
        if not path.is_file():
            return None
        with closing(_open(path)) as connection, closing(connection.execute(_DIRECTORIES)) as rows:
            changed = [ms for where, ms in rows if is_in(where, directory)]
        return max(changed) * 1_000_000 if changed else None

    def opened(self, path: Path) -> Lines:
        """Return what reads the rows of the database."""
        self._rows = SessionRows(path, self._clock)
        return self._rows

    def starts(self, stored: Position) -> None:
        """Begin with the session that the stored log can be of."""
        self._rows.begin(None if stored.tail is None else stored.tail.time)

    def left(self, *, is_newer: bool) -> None:
        """Read a session later that is newer than the one that goes on."""
        if is_newer:
            self._rows.put_back()

    def resumes(self) -> None:
        """Read what was put back after this session."""
        self._rows.take_up()

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what one part of a message says."""
        return _found(json.loads(line), thoughts=self._thoughts)


@dataclass(slots=True)
class _Seen:
    """What a session was at a look. Its time changes with its title, too."""

    changed_ms: int
    last_message: str | None


class SessionRows:
    """The parts of one session after another, each as a line of JSON, as soon as it is complete.

    A part is written empty and filled in place. So a part is passed on only when it does not change
    any more, and none of the later ones before it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._heard_at = 0.0
        self._since: Time | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        """The file that is open."""
        self._session: str | None = None
        self._waiting: list[str] = []
        self._put_back: list[str] = []
        self._before: str | None = None
        """The session that was read before this one."""
        self._known: dict[str, _Seen] = {}
        self._begins_with(None)

    def begin(self, since: Time | None) -> None:
        """Start with the first session that changed after `since`; None: with the newest."""
        self._since = since

    def start_over(self) -> None:
        """Choose again where to start."""
        self.close()
        self._session = None
        self._known = {}
        self._waiting, self._put_back = [], []

    def put_back(self) -> None:
        """Keep the session before this one for later: see `take_up`."""
        if self._before is not None:
            self._put_back.append(self._before)

    def take_up(self) -> None:
        """Let the sessions that were put back follow this one."""
        self._waiting = self._put_back + self._waiting
        self._put_back = []

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look(self) -> Look:
        """Read on. STARTED_OVER: another session begins. Raises OSError."""
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            self.close()
            return Look([], Change.MISSING, is_end=True)
        if self._identity != (status.st_dev, status.st_ino):
            self.close()  # another file took its place
            self._identity = status.st_dev, status.st_ino
        try:
            return self._look()
        except sqlite3.Error as error:
            self.close()
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _look(self) -> Look:
        if self._connection is None:
            self._connection = _open(self._path)
        if self._session is None:
            self._find_sessions(self._since)
            self._since = None
            if not self._waiting:
                return Look([], is_end=True)
            self._begins_with(self._waiting.pop(0))
        lines = self._next_parts()
        if lines is not None:
            self._heard_at = self._clock()
            return lines
        if not self._waiting:
            self._find_successors()
        if self._waiting:
            self._begins_with(self._waiting.pop(0))
            return Look([], Change.STARTED_OVER)
        return Look([], is_end=True)

    def _begins_with(self, session: str | None) -> None:
        self._before, self._session = self._session, session
        self._heard_at = self._clock()
        self._place = ("", "")
        self._called: set[str] = set()

    def _find_sessions(self, since: Time | None) -> None:
        """Choose where to start: the newest session, or the first that changed since."""
        everything = self._sessions(0)
        last_messages = dict(self._selected(_LAST_MESSAGES))
        self._known = {
            session: _Seen(changed_ms, last_messages.get(session))
            for session, changed_ms in everything.items()
        }
        recent = {} if since is None else self._sessions((since.seconds - 1) * 1000)
        self._waiting = list(recent) or list(everything)[-1:]

    def _find_successors(self) -> None:
        """Find the sessions that are new, or that go on again while the other is quiet."""
        is_quiet = self._clock() - self._heard_at >= QUIET_SECONDS
        for session, changed_ms in self._sessions(0).items():
            known = self._known.get(session)
            if known is not None and known.changed_ms == changed_ms:
                continue
            if known is not None and session != self._session and not is_quiet:
                continue  # seen as changed once the other is quiet
            [(last_message,)] = self._selected(_LAST_MESSAGE, session=session)
            goes_on = known is not None and last_message != known.last_message
            if known is None or goes_on or session == self._session:
                self._known[session] = _Seen(changed_ms, last_message)
            if known is None or (goes_on and session != self._session):
                self._waiting.append(session)

    def _sessions(self, since_ms: int) -> dict[str, int]:
        """Return the sessions and when they changed, the one that changed last at the end."""
        return dict(self._selected(_SESSIONS, since=since_ms))

    def _selected(self, statement: str, **values: object) -> list[Any]:
        assert self._connection is not None
        with closing(self._connection.execute(statement, values)) as rows:
            return rows.fetchall()

    def _next_parts(self) -> Look | None:
        """Return the next parts that are complete; None if there are none."""
        assert self._connection is not None
        message, part = self._place
        asked = {"session": self._session, "message": message, "part": part, "most": _MOST_ROWS}
        asked["longest"] = MAX_LINE_BYTES
        lines: list[bytes] = []
        size = too_long = 0
        with closing(self._connection.execute(_PARTS, asked)) as rows:
            for message_id, message_data, part_id, part_data, has_later in rows:
                if part_data is None or message_data is None:
                    too_long += 1
                    self._place = (message_id, part_id)
                    continue
                line = self._part(message_data, part_id, part_data, has_later=bool(has_later))
                if line is None:
                    break
                lines.append(line.text)
                size += len(line.text)
                if not line.is_complete:
                    break
                self._place = (message_id, part_id)
                if size > _MOST_BYTES:
                    break
        return Look(lines, too_long=too_long) if lines or too_long else None

    def _part(
        self, message_data: str, part_id: str, part_data: str, *, has_later: bool
    ) -> _Part | None:
        """Return what is shown of a part; None if nothing is shown of it yet."""
        try:
            said, held = _object(message_data), _object(part_data)
        except ValueError:
            return _Part(b"{}", is_complete=True)  # left out, when it is parsed
        time, state = said.get("time"), held.get("state")
        is_over = has_later or "error" in said or (isinstance(time, dict) and "completed" in time)
        is_complete = is_over or said.get("role") == "user" or _is_complete(held)
        # The call of a tool is shown while the tool runs.
        begins = held.get("type") == "tool" and part_id not in self._called
        is_running = isinstance(state, dict) and state.get("status") == "running"
        if not (is_complete or (begins and is_running)):
            return None
        if begins:
            self._called.add(part_id)
        row = {"message": said, "id": part_id, "part": held, "call": begins, "result": is_complete}
        return _Part(json.dumps(row).encode(), is_complete)


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a message as a line. A part that is not complete comes again."""

    text: bytes
    is_complete: bool


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)


def _object(text: str) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for anything else."""
    try:
        found = json.loads(text)
    except (RecursionError, TypeError):
        raise ValueError from None
    if not isinstance(found, dict):
        raise ValueError
    return found


def _is_complete(part: Mapping[str, Any]) -> bool:
    match part:
        case {"type": "text" | "reasoning", "time": {"end": _}}:
            return True
        case {"type": "text" | "reasoning"}:
            return False
        case {"type": "tool", "state": {"status": "completed" | "error"}}:
            return True
        case {"type": "tool"}:
            return False
    return True


def _found(row: Mapping[str, Any], *, thoughts: bool) -> Iterator[Found]:
    message, part, own_id = row["message"], row["part"], row["id"]
    time = _time(part, message, "start")
    match part:
        case {"type": "text", "text": str(text)}:
            yield _text(text, message, time, Names(own_id))
        case {"type": "reasoning", "text": str(text)} if thoughts and text:
            yield Record(EntryType.THOUGHT, text, time, Names(own_id))
        case {"type": "tool", "tool": str(tool), "callID": str(call_id), "state": dict(state)}:
            if row["call"]:
                arguments = json.dumps(state.get("input"), ensure_ascii=False)
                yield Record(EntryType.TOOL_CALL, arguments, time, Names(own_id, tool, call_id))
            if row["result"]:
                output = state.get("output", state.get("error", ""))
                names = Names(f"{own_id}/result", tool, call_id)
                ended = _time(part, message, "end")
                yield Record(EntryType.TOOL_RESULT, str(output), ended, names)
        case {"type": str(kind)}:
            yield LeftOut(kind)


def _text(text: str, message: Mapping[str, Any], time: Time | None, names: Names) -> Found:
    if message.get("summary") is True:
        return Record(EntryType.NOTICE, text, time, names)
    if not text:
        return LeftOut("empty")
    said_by_user = message.get("role") == "user"
    return Record(EntryType.INPUT if said_by_user else EntryType.OUTPUT, text, time, names)


def _time(part: Mapping[str, Any], message: Mapping[str, Any], which: str) -> Time | None:
    """Return when the part began or ended, else when its message began, to the millisecond."""
    state, made = part.get("state"), message.get("time")
    of_state = state.get("time") if isinstance(state, dict) else None
    times = [one.get(which) for one in (part.get("time"), of_state) if isinstance(one, dict)]
    times.append(made.get("created") if isinstance(made, dict) else None)
    for ms in times:
        if isinstance(ms, int) and 0 <= ms < _YEAR_10000_MS:
            return Time(ms // 1000, ms % 1000 * 1_000_000)
    return None
