"""Which of an agent's session files is read, and when another one takes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasklogs.agent.sources.line_file import Change
from tasklogs.agent.sources.session_files import SessionFiles
from tasklogs.log.entry import Time


def session_of(path: Path) -> str | None:
    """Return what is after the last hyphen of the name."""
    return path.stem.rpartition("-")[2] if path.suffix == ".jsonl" else None


class Directory:
    """A directory of sessions, with a clock of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        self.files = SessionFiles(root, session_of, lambda: self.now)

    def write(self, name: str, *lines: str, at: int) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.utime(path, (at, at))

    def read(self) -> list[str]:
        """Read to the end; `---` is where another session begins."""
        said: list[str] = []
        while True:
            look = self.files.look()
            said += [line.decode() for line in look.lines]
            if look.change is Change.STARTED_OVER:
                said.append("---")
            if look.is_end:
                return said


@pytest.fixture
def sessions(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "sessions")


def test_the_newest_session_is_read_first(sessions: Directory) -> None:
    sessions.write("old.jsonl", "old", at=1)
    sessions.write("a/new.jsonl", "new", at=2)
    sessions.files.start_over()
    assert sessions.read() == ["new"]


def test_a_directory_that_appears_later_is_read(sessions: Directory) -> None:
    sessions.files.start_over()
    assert sessions.read() == []
    sessions.write("a/b/c.jsonl", "one", at=1)
    assert sessions.read() == ["one"]


def test_a_new_session_is_read_after_the_rest_of_the_one_before(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    sessions.write("a.jsonl", "two", at=2)
    sessions.write("b.jsonl", "three", at=3)
    assert sessions.read() == ["two", "---", "three"]


def test_two_new_sessions_are_read_in_the_order_of_their_changes(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    sessions.write("b.jsonl", "three", at=3)
    sessions.write("c.jsonl", "two", at=2)
    assert sessions.read() == ["---", "two", "---", "three"]


def test_a_session_without_a_line_does_not_take_over(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    sessions.write("b.jsonl", at=2)
    assert sessions.read() == []
    sessions.write("b.jsonl", "two", at=3)
    assert sessions.read() == ["---", "two"]


def test_an_older_session_takes_over_once_the_other_is_quiet(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.write("b.jsonl", "two", at=2)
    sessions.files.start_over()
    sessions.read()
    sessions.write("a.jsonl", "more", at=3)
    sessions.now += 29
    assert sessions.read() == []
    sessions.now += 2
    assert sessions.read() == ["---", "one", "more"]


def test_two_sessions_at_once_do_not_take_turns(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.write("b.jsonl", "two", at=2)
    sessions.files.start_over()
    sessions.read()
    for at in range(3, 100):
        sessions.write("a.jsonl", "theirs", at=at)
        sessions.write("b.jsonl", "ours", at=at)
        sessions.now += 20
        assert sessions.read() == ["ours"]


def test_after_a_restart_it_starts_with_what_changed_since(sessions: Directory) -> None:
    for at, name in enumerate(("a", "b", "c", "d"), start=1):
        sessions.write(f"{name}.jsonl", name, at=100 * at)
    sessions.files.begin(Time(200, 0))
    sessions.files.start_over()
    assert sessions.read() == ["b", "---", "c", "---", "d"]
    sessions.files.start_over()
    assert sessions.read() == ["d"]


def test_other_files_and_links_are_not_read(sessions: Directory, tmp_path: Path) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.write("notes.txt", "two", at=2)
    (tmp_path / "outside.jsonl").write_text("three\n")
    (sessions.root / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    sessions.files.start_over()
    assert sessions.read() == ["one"]


def test_a_session_that_vanishes_is_no_other_session(sessions: Directory) -> None:
    sessions.write("a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    (sessions.root / "a.jsonl").unlink()
    assert sessions.read() == []
    sessions.write("a.jsonl", "one", "two", at=2)
    assert sessions.read() == ["two"]


def test_the_files_of_one_session_are_read_as_one(sessions: Directory) -> None:
    sessions.write("1-a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    sessions.write("2-a.jsonl", "two", at=2)
    sessions.write("1-a.jsonl", "three", at=2)
    assert sessions.read() == ["three", "two"]
    (sessions.root / "1-a.jsonl").unlink()
    sessions.write("2-a.jsonl", "four", at=3)
    assert sessions.read() == ["four"]
    sessions.write("3-b.jsonl", "five", at=4)
    assert sessions.read() == ["---", "five"]


def test_old_sessions_cost_nothing_at_a_look(tmp_path: Path) -> None:
    root = tmp_path / "sessions"
    for project in range(10):
        (root / str(project)).mkdir(parents=True)
        for number in range(100):
            (root / str(project) / f"x-{project}.{number}.jsonl").write_text("old\n")
        os.utime(root / str(project), (project, project))
    os.utime(root, (1, 1))
    asked: list[Path] = []

    def counted(path: Path) -> str | None:
        asked.append(path)
        return session_of(path)

    sessions = Directory(root)
    sessions.files = SessionFiles(root, counted, lambda: sessions.now)
    sessions.files.start_over()
    sessions.read()
    assert len(asked) == 1000
    for _ in range(100):
        assert sessions.read() == []
    assert len(asked) == 1000
    sessions.write("3/y-new.jsonl", "new", at=10**10)
    assert sessions.read() == ["---", "new"]
    assert len(asked) < 1500


def test_a_session_that_is_empty_at_first_is_seen_at_once(sessions: Directory) -> None:
    sessions.write("a/a.jsonl", "one", at=1)
    sessions.files.start_over()
    sessions.read()
    sessions.write("a/b.jsonl", at=2)
    os.utime(sessions.root / "a", (2, 2))
    for _ in range(3):
        assert sessions.read() == []
    sessions.write("a/b.jsonl", "two", at=3)
    assert sessions.read() == ["---", "two"]


def test_a_directory_that_may_not_be_read_hides_no_other(
    sessions: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.write("a/a.jsonl", "one", at=1)
    sessions.write("b/b.jsonl", "two", at=2)
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    sessions.files.start_over()
    assert sessions.read() == ["one"]
