"""A log that cannot be written: lines are lost and counted, and nothing waits or fails."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from tasklogs.log_writer import MAX_HELD_BYTES, LogWriter
from tests.support.fixtures.conditions import DEADLINE_SECONDS

LINE = ("a line of a log " * 20).strip()
_MANY = 2 * MAX_HELD_BYTES // len(LINE)
"""More lines than are held and fit into a pipe or a socket."""


def told(count: int, reason: str) -> str:
    return f"lost {count}: {reason}"


@contextmanager
def ended_if_it_waits() -> Iterator[None]:
    """End the process instead of hanging: a writer that waits does so indefinitely."""
    timer = threading.Timer(DEADLINE_SECONDS, os._exit, [70])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def text_of(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", closefd=False)


def read_until(reading: int, end: bytes) -> str:
    """Read up to a line that begins with `end`."""
    text = b""
    with ended_if_it_waits():
        while not (text.endswith(b"\n") and text.splitlines()[-1].startswith(end)):
            select.select([reading], [], [])  # it may be non-blocking
            text += os.read(reading, 65_536)
    return text.decode()


@pytest.mark.parametrize("kind", ["pipe", "non-blocking pipe", "socket"])
def test_a_reader_that_stands_still_stalls_nobody(kind: str) -> None:
    if kind == "socket":
        ours, theirs = (one.detach() for one in socket.socketpair())
    else:
        ours, theirs = os.pipe()
        os.set_blocking(theirs, kind == "pipe")
    writer = LogWriter(text_of(theirs), told)
    with ended_if_it_waits():
        for number in range(_MANY):
            writer.write(f"{number} {LINE}")
    numbers: list[int] = []
    lost = 0
    with ended_if_it_waits(), open(ours, encoding="utf-8", closefd=False) as reading:
        while len(numbers) + lost < _MANY:
            first, _, rest = reading.readline().removesuffix("\n").partition(" ")
            if first == "lost":
                lost += int(rest.removesuffix(": its reader stands still"))
            else:
                numbers.append(int(first))
                assert rest == LINE
    assert lost > 0
    # What is lost may lie in between: the first lines fit into the pipe.
    assert numbers == sorted(set(numbers))
    writer.write("it works again")
    assert read_until(ours, b"it works") == "it works again\n"
    writer.flush()
    os.close(ours)
    os.close(theirs)


def test_a_process_ends_while_the_reader_of_its_log_stands_still() -> None:
    program = (
        "import sys\n"
        "from tasklogs.log_writer import LogWriter\n"
        "writer = LogWriter(sys.stderr, lambda count, reason: '')\n"
        f"for _ in range({_MANY}): writer.write({LINE!r})\n"
    )
    reading, writing = os.pipe()
    try:
        code = subprocess.run(
            [sys.executable, "-c", program], stderr=writing, timeout=DEADLINE_SECONDS, check=False
        ).returncode
    finally:
        os.close(reading)
        os.close(writing)
    assert code == 0


def test_a_pipe_that_gets_another_reader_is_written_again(tmp_path: Path) -> None:
    name = tmp_path / "log"
    os.mkfifo(name)
    first = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    stream = text_of(os.open(name, os.O_WRONLY))
    writer = LogWriter(stream, told)
    writer.write("one")
    assert read_until(first, b"one") == "one\n"
    writer.flush()
    os.close(first)
    for lost in ("two", "three"):
        writer.write(lost)
        writer.flush()
    second = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    writer.write("four")
    writer.flush()
    assert read_until(second, b"lost") == "four\nlost 2: Broken pipe\n"
    os.close(second)
    os.close(stream.fileno())


def test_a_file_at_its_limit_is_written_again_when_there_is_room(tmp_path: Path) -> None:
    """The kernel sends SIGXFSZ, which ends a program that does not ignore it."""
    file = tmp_path / "log"
    program = (
        "import resource, sys\n"
        "from tasklogs.log_writer import LogWriter\n"
        "writer = LogWriter(sys.stderr, lambda count, reason: f'lost {count}: {reason}')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (13, resource.RLIM_INFINITY))\n"
        "for word in ('one', 'two', 'three-four', 'five'):\n"
        "    writer.write(word)\n"
        "    writer.flush()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "writer.write('six')\n"
        "writer.flush()\n"
        # What measures coverage writes a file at the end.
        "resource.setrlimit(resource.RLIMIT_FSIZE, [resource.RLIM_INFINITY] * 2)\n"
    )
    with file.open("w") as log:
        subprocess.run(
            [sys.executable, "-c", program], stderr=log, timeout=DEADLINE_SECONDS, check=True
        )
    # A line that was cut off ends before the next one begins.
    assert file.read_text().splitlines() == ["one", "two", "three", "six", "lost 2: File too large"]


class Stream:
    """Text in memory, as long as it `works`."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.works = False
        self.written = ""

    def write(self, text: str) -> None:
        if not self.works:
            raise OSError(28, "No space left on device")
        self.written += text

    def flush(self) -> None:
        pass


def test_lost_lines_are_told_again_if_the_line_that_tells_is_lost() -> None:
    stream = Stream()
    works_while_it_tells = False

    def tell(count: int, reason: str) -> str:
        stream.works = works_while_it_tells
        return told(count, reason)

    writer = LogWriter(stream, tell)  # type: ignore[arg-type]
    writer.write("one")
    writer.write("two")
    stream.works = True
    writer.write("three")
    stream.works = works_while_it_tells = True
    writer.write("four")
    writer.write("five")
    assert stream.written.splitlines() == [
        *("three", "four", "lost 2: No space left on device", "five")
    ]


def test_a_process_without_stderr_logs_nothing() -> None:
    LogWriter(None, told).write("line")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_says_how_many_records_were_lost(tmp_path: Path, log_format: str) -> None:
    program = (
        "import os, structlog\n"
        "from tasklogs import log_output\n"
        f"log_output.configure({log_format!r}, 'info')\n"
        "log = structlog.get_logger()\n"
        "keep = os.dup(2)\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n"
        "for _ in range(3): log.info('stream.opened')\n"
        "log_output.flush()\n"
        "os.dup2(keep, 2)\n"
        "log.info('stream.ended')\n"
    )
    file = tmp_path / "log"
    with file.open("w") as log:
        subprocess.run(
            [sys.executable, "-c", program], stderr=log, timeout=DEADLINE_SECONDS, check=True
        )
    ended, lost = file.read_text().splitlines()
    assert "stream.ended" in ended
    if log_format == "json":
        line = json.loads(lost)
        del line["timestamp"]
        assert line == {
            "event": "records.lost",
            "level": "warning",
            "count": 3,
            "reason": "No space left on device",
        }
    else:
        assert "records.lost" in lost
