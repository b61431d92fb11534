"""`tasklogs logs -f`: follows a log until Ctrl-C, until its reader leaves, or the task ends."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import grpc

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.render.follow_append import AppendedText
from tasklogs.cli.render.follow_lines import FollowLines
from tasklogs.cli.render.follow_screen import ScreenText
from tasklogs.cli.rpc_failure import describe, in_words, proxy_answer, without_code
from tasklogs.cli.target import Target
from tasklogs.client.client import TaskLogsClient
from tasklogs.client.events import FollowEvent, Reconnected, Reconnecting
from tasklogs.enums import LogSource, TaskLogType
from tasklogs.errors import CursorExpired, TaskLogsRpcError


class Printer(Protocol):
    """Prints the events of a follow."""

    def show(self, event: FollowEvent) -> None:
        """Print `event`."""

    def notice(self, message: str) -> None:
        """Print a line on stderr that is not an event."""

    def finish(self) -> None:
        """Print what is held back, and end the last line."""


def follow_log(
    task: str,
    *,
    source: LogSource | None,
    tail: int | None,
    cursor: str | None,
    types: Sequence[TaskLogType],
    as_lines: bool,
    raw: bool,
    columns: int | None,
    target: Target,
) -> None:
    """Print the log as it grows; return at Ctrl-C. The timeout is that of the first response.

    `raw`: print content as it is, even if it steers the terminal. `columns`: shorten tool calls,
    results and notices for a terminal of this width.
    """
    from_the_start = tail != 0 and cursor is None
    printer = FollowLines() if as_lines else _text_printer(task, raw, from_the_start, columns)
    try:
        asyncio.run(_follow(printer, task, source, tail, cursor, types, target))
    except KeyboardInterrupt:
        printer.finish()
        sys.stdout.flush()
    except CursorExpired as error:
        printer.finish()
        raise CommandFailed(_expired(error)) from error
    except TaskLogsRpcError as error:
        printer.finish()
        raise CommandFailed(
            describe(error, target.server, target.timeout_seconds, target.tls)
        ) from error


async def _follow(
    printer: Printer,
    task: str,
    source: LogSource | None,
    tail: int | None,
    cursor: str | None,
    types: Sequence[TaskLogType],
    target: Target,
) -> None:
    connections = _Connections(printer, target.server)
    async with TaskLogsClient(target.server, token=target.token, tls=target.tls) as client:
        follow = client.follow(
            task,
            source=source,
            tail=tail,
            cursor=cursor,
            types=types,
            # The text printers use it to see that an entry rests. Programs do not need it.
            progress=not isinstance(printer, FollowLines),
            connect_timeout=timedelta(seconds=target.timeout_seconds),
            on_reconnect=connections.told,
        )
        with _ended_by_a_reader_that_left():
            async for event in follow:
                printer.show(event)
                sys.stdout.flush()


def _text_printer(task: str, raw: bool, from_the_start: bool, columns: int | None) -> Printer:
    on_terminal = sys.stdout.isatty()
    # Raw content may move the cursor, and then nothing can be redrawn reliably.
    if on_terminal and not raw and os.environ.get("TERM", "") not in ("", "dumb"):
        return ScreenText(task, from_the_start=from_the_start, columns=columns)
    return AppendedText(
        task,
        escaped=not raw,
        on_terminal=on_terminal,
        from_the_start=from_the_start,
        columns=columns,
    )


class _Connections:
    """Prints one notice when the stream breaks, and one when it continues."""

    def __init__(self, printer: Printer, server: str) -> None:
        self._printer = printer
        self._server = server
        self._said = ""

    def told(self, what: Reconnecting | Reconnected) -> None:
        match what:
            case Reconnecting():
                why = self._why(what.error)
                if why != self._said:
                    self._printer.notice(f"{why}; retrying")
                self._said = why
            case Reconnected():
                self._printer.notice(f"reconnected to {self._server}")
                self._said = ""

    def _why(self, error: TaskLogsRpcError) -> str:
        if error.http_status is not None:
            return f"no connection to {self._server}: {proxy_answer(error.http_status)}"
        if error.reason is None and error.code is grpc.StatusCode.UNAVAILABLE:
            return f"no connection to {self._server} ({error.message})"
        return f"{in_words(error.code)}: {without_code(error.message)}"


@contextmanager
def _ended_by_a_reader_that_left() -> Iterator[None]:
    """Raise BrokenPipeError in the `with` when the pipe at stdout loses its reader.

    Otherwise the follow of a silent task would not notice before the next entry.
    """
    descriptor = sys.stdout.fileno()
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        yield
        return
    loop, follower = asyncio.get_running_loop(), asyncio.current_task()
    assert follower is not None
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        loop.remove_reader(descriptor)
        follower.cancel()

    # The writing end of a pipe becomes "readable" only when its reading end is closed.
    loop.add_reader(descriptor, leave)
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        follower.uncancel()
        raise BrokenPipeError(errno.EPIPE, "the reader of the log has left") from None
    finally:
        loop.remove_reader(descriptor)


def _expired(error: CursorExpired) -> str:
    goes_on = f"; the oldest cursor that is still valid: --cursor {error.oldest_cursor}"
    return f"{error.message}{goes_on if error.oldest_cursor else ''}"
