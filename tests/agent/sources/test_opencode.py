"""OpenCode's database while it is written, replaced, locked, or not as expected."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any, Self

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources import opencode
from tasklogs.agent.sources.line_file import Change
from tasklogs.agent.sources.opencode import OpenCode, SessionRows
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import LeftOut, Record
from tasklogs.log.entry import EntryType

_SCHEMA = """
    CREATE TABLE session (id PRIMARY KEY, parent_id, time_created, time_updated);
    CREATE TABLE message (id PRIMARY KEY, session_id, data);
    CREATE TABLE part (id PRIMARY KEY, message_id, session_id, data);
"""


class Database:
    """What OpenCode would write."""

    def __init__(self, path: Path, session: str = "s1", at_ms: int = 1000) -> None:
        self.path = path
        self.session = session
        self.count = 0
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO session VALUES (?, NULL, ?, 0)", (session, at_ms))

    def also(self, session: str, at_ms: int) -> Self:
        """Begin another session. Returns what writes it."""
        other = copy(self)
        other.session, other.count = session, 0
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("INSERT INTO session VALUES (?, NULL, ?, 0)", (session, at_ms))
        return other

    def touch(self, at_ms: int) -> None:
        """Change the session, as OpenCode does with each message, and with the title."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                "UPDATE session SET time_updated = ? WHERE id = ?", (at_ms, self.session)
            )

    def say(self, text: str, role: str = "user") -> None:
        self.part({"type": "text", "text": text, "time": {"end": 1}}, role)

    def part(self, part: object, role: str = "user") -> None:
        self.raw(json.dumps({"role": role, "time": {"created": 1}}), json.dumps(part))

    def raw(self, message: str, part: str) -> None:
        self.count += 1
        own_id = f"{self.session}.{self.count:04}"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                "INSERT INTO message VALUES (?, ?, ?)", (own_id, self.session, message)
            )
            connection.execute(
                "INSERT INTO part VALUES (?, ?, ?, ?)", (own_id, own_id, self.session, part)
            )


def read(rows: SessionRows) -> list[str]:
    """Read to the end; `---` is where another session begins."""
    said: list[str] = []
    while True:
        look = rows.look()
        said += [json.loads(line)["part"]["text"] for line in look.lines]
        said += ["too long"] * look.too_long
        if look.change is Change.STARTED_OVER:
            said.append("---")
        if look.is_end:
            return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "opencode.db"


class Clock:
    """Returns seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rows(path: Path, clock: Clock) -> Iterator[SessionRows]:
    reader = SessionRows(path, clock)
    yield reader
    reader.close()


def test_an_older_session_takes_over_once_the_other_is_quiet(
    path: Path, rows: SessionRows, clock: Clock
) -> None:
    old = Database(path)
    old.say("one")
    new = old.also("s2", 2000)
    new.say("two")
    new.touch(2001)
    assert read(rows) == ["two"]
    old.say("more")
    old.touch(3000)
    clock.now += 29
    assert read(rows) == []
    clock.now += 2
    assert read(rows) == ["---", "one", "more"]
    new.say("again")
    new.touch(4000)
    old.say("and more")
    old.touch(4000)
    clock.now += 31
    assert read(rows) == ["and more"]
    clock.now += 31
    assert read(rows) == ["---", "two", "again"]


def test_two_sessions_at_once_do_not_take_turns(
    path: Path, rows: SessionRows, clock: Clock
) -> None:
    theirs = Database(path)
    theirs.say("theirs")
    ours = theirs.also("s2", 2000)
    ours.touch(2001)
    ours.say("ours")
    read(rows)
    for at_ms in range(3000, 3020):
        theirs.say("theirs")
        theirs.touch(at_ms)
        ours.say("ours")
        ours.touch(at_ms)
        clock.now += 20
        assert read(rows) == ["ours"]


def test_a_session_that_gets_a_title_is_not_resumed(
    path: Path, rows: SessionRows, clock: Clock
) -> None:
    old = Database(path)
    old.say("one")
    new = old.also("s2", 2000)
    new.say("two")
    new.touch(2001)
    assert read(rows) == ["two"]
    old.touch(3000)
    clock.now += 60
    assert read(rows) == []
    old.say("more")
    assert read(rows) == ["---", "one", "more"]


def test_a_database_that_is_replaced_is_read_on(
    path: Path, rows: SessionRows, tmp_path: Path
) -> None:
    Database(path).say("one")
    assert read(rows) == ["one"]
    other = Database(tmp_path / "other.db", "s2", 2000)
    other.say("two")
    other.path.replace(path)
    other.path = path
    assert read(rows) == ["---", "two"]
    other.say("three")
    assert read(rows) == ["three"]


def test_a_database_that_vanishes_is_waited_for(
    path: Path, rows: SessionRows, tmp_path: Path
) -> None:
    database = Database(path)
    database.say("one")
    assert read(rows) == ["one"]
    path.rename(tmp_path / "away.db")
    assert rows.look().change is Change.MISSING
    (tmp_path / "away.db").rename(path)
    database.say("two")
    assert read(rows) == ["two"]


def test_a_locked_database_is_read_later(
    path: Path, rows: SessionRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opencode, "_BUSY_SECONDS", 0.01)
    Database(path).say("one")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match="locked"):
            rows.look()
        other.execute("ROLLBACK")
    assert read(rows) == ["one"]


def test_a_file_that_is_no_database_is_an_error_of_the_file(path: Path, rows: SessionRows) -> None:
    path.write_text("no database" * 1000)
    with pytest.raises(OSError, match="database"):
        rows.look()


def test_what_is_read_at_once_is_bounded(path: Path, rows: SessionRows) -> None:
    database = Database(path)
    for _ in range(8):
        database.say("x" * 400_000)
    database.say("y" * 9_000_000)
    database.say("end")
    sizes = []
    while not (look := rows.look()).is_end:
        sizes.append(sum(map(len, look.lines)))
    assert max(sizes) < 2_000_000
    assert sum(sizes) > 3_200_000
    rows.start_over()
    assert read(rows)[-2:] == ["end", "too long"]


@pytest.mark.parametrize("strange", ["no json", "[]", "null", "7", "[" * 100_000])
def test_a_strange_row_does_not_stop_the_others(path: Path, strange: str) -> None:
    database = Database(path)
    database.say("one")
    database.raw(strange, json.dumps({"type": "text", "text": "x"}))
    database.raw('{"role": "user", "time": null}', strange)
    database.raw('{"role": "assistant", "time": 7}', '{"type": "tool", "state": null}')
    database.part({"type": "tool", "tool": "t", "callID": "c", "state": {"status": "completed"}})
    database.say("two")
    source = OpenCode(SourceOptions(transcript=path), Settings(), lambda: 0.0)
    lines: list[bytes] = []
    while not (look := source._lines.look()).is_end:
        lines += look.lines
    source._lines.close()
    found = [one for line in lines for one in source._parsed(line)]
    said = [one.content for one in found if isinstance(one, Record)]
    assert (said[0], said[-1]) == ("one", "two")


@pytest.mark.parametrize("thoughts", [True, False])
def test_thoughts_are_read_if_they_are_wanted(path: Path, thoughts: bool) -> None:
    source = OpenCode(SourceOptions(transcript=path, thoughts=thoughts), Settings(), lambda: 0.0)
    part: dict[str, Any] = {"type": "reasoning", "text": "hm", "time": {"start": 5, "end": 6}}
    row = {
        "message": {"role": "assistant"},
        "id": "p1",
        "part": part,
        "call": False,
        "result": True,
    }
    (found,) = source.parse(json.dumps(row).encode())
    if thoughts:
        assert isinstance(found, Record)
        assert (found.type, found.content) == (EntryType.THOUGHT, "hm")
    else:
        assert found == LeftOut("reasoning")


@pytest.mark.parametrize("moment", [-1, 10**18, True, "5", None])
def test_a_time_that_cannot_be_is_no_time(path: Path, moment: Any) -> None:
    source = OpenCode(SourceOptions(transcript=path), Settings(), lambda: 0.0)
    message = {"role": "user", "time": {"created": moment}}
    part = {"type": "text", "text": "a"}
    row = {"message": message, "id": "p1", "part": part, "call": False, "result": True}
    (found,) = source.parse(json.dumps(row).encode())
    assert isinstance(found, Record)
    assert found.time is None or moment is True
