"""What may happen to a file that another program writes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tasklogs.agent.sources import line_file
from tasklogs.agent.sources.line_file import Change, LineFile, Lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "transcripts"
    directory.mkdir()
    return directory / "log"


def read(file: LineFile) -> tuple[list[bytes], list[Change]]:
    """Read to the present end. Return the lines and what happened."""
    lines: list[bytes] = []
    changes: list[Change] = []
    while True:
        look = file.look()
        lines += look.lines
        if look.change is not Change.NONE:
            changes.append(look.change)
        if look.is_end:
            return lines, changes


def test_a_line_waits_for_its_newline(path: Path) -> None:
    file = LineFile(path)
    path.write_bytes(b"one\ntw")
    assert read(file) == ([b"one"], [])
    with path.open("ab") as more:
        more.write(b"o\n")
    assert read(file) == ([b"two"], [])


def test_a_file_that_comes_later_vanishes_and_comes_back_is_read_once(path: Path) -> None:
    file = LineFile(path)
    assert read(file) == ([], [Change.MISSING])
    path.write_bytes(b"one\n")
    assert read(file) == ([b"one"], [])
    aside = path.rename(path.with_name("aside"))
    assert read(file) == ([], [Change.MISSING])
    aside.rename(path)
    with path.open("ab") as more:
        more.write(b"two\n")
    assert read(file) == ([b"two"], [])


def test_the_end_of_a_file_that_was_deleted_is_read(path: Path) -> None:
    file = LineFile(path)
    path.write_bytes(b"one\n")
    read(file)
    with path.open("ab") as more:
        more.write(b"two\n")
        path.unlink()
    assert read(file) == ([b"two"], [Change.MISSING])


def test_a_file_that_is_rewritten_with_more_goes_on(path: Path) -> None:
    file = LineFile(path)
    path.write_bytes(b"one\n")
    read(file)
    other = path.with_name("other")
    other.write_bytes(b"one\ntwo\n")
    other.replace(path)
    assert read(file) == ([b"two"], [Change.MOVED])


def test_another_file_in_its_place_starts_over_after_the_rest_of_the_old_one(path: Path) -> None:
    file = LineFile(path)
    path.write_bytes(b"one\n")
    read(file)
    with path.open("ab") as more:
        more.write(b"two\nthree")
    other = path.with_name("other")
    other.write_bytes(b"four\n")
    other.replace(path)
    assert read(file) == ([b"two", b"three", b"four"], [Change.STARTED_OVER])


@pytest.mark.parametrize("then", [b"", b"new\n", b"another, longer line\n"])
def test_a_truncated_file_starts_over(path: Path, then: bytes) -> None:
    """Also if it has grown past the place that was read."""
    file = LineFile(path)
    path.write_bytes(b"one\ntwo\n")
    read(file)
    path.write_bytes(then)
    lines, changes = read(file)
    assert changes == [Change.STARTED_OVER]
    assert lines == then.splitlines()


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "missing/../../outside"])
def test_a_link_that_leads_out_is_refused(path: Path, target: str) -> None:
    (path.parent.parent / "outside").write_bytes(b"secret\n")
    (path.parent / "missing").mkdir()
    path.symlink_to(target)
    assert read(LineFile(path)) == ([], [Change.REFUSED])


def test_a_link_inside_of_the_directory_is_followed(path: Path) -> None:
    (path.parent / "real").write_bytes(b"one\n")
    path.symlink_to("real")
    assert read(LineFile(path)) == ([b"one"], [])


def test_a_pipe_and_a_directory_are_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    assert read(LineFile(path)) == ([], [Change.REFUSED])
    path.unlink()
    path.mkdir()
    assert read(LineFile(path)) == ([], [Change.REFUSED])


def test_a_line_that_is_too_long_is_left_out_and_not_kept(path: Path) -> None:
    path.write_bytes(b"one\n" + b"x" * (line_file.MAX_LINE_BYTES + 1) + b"\ntwo\n")
    file = LineFile(path)
    lines: list[bytes] = []
    too_long = 0
    while not (look := file.look()).is_end:
        lines += look.lines
        too_long += look.too_long
    assert (lines + look.lines, too_long + look.too_long) == ([b"one", b"two"], 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_pieces_give_the_same_lines(seed: int) -> None:
    rng = random.Random(seed)
    whole = b"".join(b"x" * rng.randrange(8) + b"\n" for _ in range(50))
    lines = Lines(max_bytes=5)
    found: list[bytes] = []
    too_long = place = 0
    while place < len(whole):
        length = rng.randrange(1, 20)
        more, skipped = lines.feed(whole[place : place + length])
        found += more
        too_long += skipped
        place += length
    every = whole.split(b"\n")[:-1]
    assert found == [line for line in every if len(line) <= 5]
    assert too_long == sum(len(line) > 5 for line in every)
