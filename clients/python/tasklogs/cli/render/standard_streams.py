"""Stdin, stdout and stderr of the command: opened if they were closed, and what fails is told."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import IO


class StdoutFailed(Exception):
    """Stdout takes no more, for a reason other than a reader that has left."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to stdout: {error.strerror}")


class _Stdout(io.TextIOWrapper):
    """Raises StdoutFailed and BrokenPipeError. An OSError might be that of any other file."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutFailed(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutFailed(error) from error


def prepare() -> None:
    """Make the standard streams usable, whatever this process was started with.

    Where the encoding of stdout or stderr lacks a character, its escape is written.
    """
    _open_closed()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    assert isinstance(stdout, io.TextIOWrapper)
    encoding = stdout.encoding
    buffered, passed_on = stdout.line_buffering, stdout.write_through
    sys.stdout = _Stdout(
        stdout.detach(),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=buffered,
        write_through=passed_on,
    )


def _open_closed() -> None:
    """Open each standard stream that is closed. A socket or a file would take its number.

    Stdin is empty, and a write to stdout fails as on a closed one. Stderr loses what is written.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # it gets the lowest free number


def discard(stream: IO[str]) -> None:
    """Lose what `stream` has not written. Python writes it at its exit, and would fail or wait."""
    empty = os.open(os.devnull, os.O_WRONLY)
    os.dup2(empty, stream.fileno())
    os.close(empty)


def takes_more(stream: IO[str]) -> bool:
    """Whether a write to `stream` is not expected to wait for its reader."""
    if not hasattr(select, "poll"):  # on Windows
        return True
    asked = select.poll()
    asked.register(stream.fileno(), select.POLLOUT)
    return bool(asked.poll(0))


def has_no_reader(stream: IO[str]) -> bool:
    """Whether `stream` is a pipe or a local socket, and its reader has left.

    On Windows it is never known before a write.
    """
    if not hasattr(select, "poll"):
        return False
    asked = select.poll()
    asked.register(stream.fileno(), 0)  # POLLERR and POLLHUP are always reported
    return bool(asked.poll(0))
