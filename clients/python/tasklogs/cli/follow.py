"""`tasklogs logs -f`: follows a log until Ctrl-C, until its reader leaves, or the task ends."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Protocol

import grpc

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.render.follow_append import AppendedText
from tasklogs.cli.render.follow_lines import FollowLines
from tasklogs.cli.render.follow_screen import ScreenText
from tasklogs.cli.render.standard_streams import discard, has_no_reader, takes_more
from tasklogs.cli.rpc_failure import describe, in_words, proxy_answer, without_code
from tasklogs.cli.target import Target
from tasklogs.client.client import TaskLogsClient
from tasklogs.client.events import FollowEvent, Reconnected, Reconnecting
from tasklogs.enums import LogSource, TaskLogType
from tasklogs.errors import CursorExpired, TaskLogsRpcError

_READER_CHECK_SECONDS = 0.5


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
    tidied: bool,
    columns: int | None,
    target: Target,
) -> None:
    """Print the log as it grows; return at Ctrl-C. The timeout is that of the first response.

    `raw`: print control characters as they are, even if they steer the terminal. `tidied`: leave
    out what screens are padded with. `columns`: shorten tool calls, results and notices for a
    terminal of this width.
    """
    from_the_start = tail != 0 and cursor is None
    printer = (
        FollowLines() if as_lines else _text_printer(task, raw, from_the_start, tidied, columns)
    )
    try:
        asyncio.run(_follow(printer, task, source, tail, cursor, types, target))
    except KeyboardInterrupt:
        if not takes_more(sys.stdout):
            discard(sys.stdout)
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
        async with _ended_by_a_reader_that_left():
            async for event in follow:
                with _interruptible():
                    printer.show(event)
                    sys.stdout.flush()


def _text_printer(
    task: str, raw: bool, from_the_start: bool, tidied: bool, columns: int | None
) -> Printer:
    on_terminal = sys.stdout.isatty()
    # Raw content may move the cursor, and then nothing can be redrawn reliably.
    if on_terminal and not raw and os.environ.get("TERM", "") not in ("", "dumb"):
        return ScreenText(task, from_the_start=from_the_start, tidied=tidied, columns=columns)
    return AppendedText(
        task,
        escaped=not raw,
        on_terminal=on_terminal,
        from_the_start=from_the_start,
        tidied=tidied,
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
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in the `with` at the first Ctrl-C, CancelledError at an earlier one.

    asyncio only cancels the task, which does not notice while a write waits for a slow reader.
    """
    of_asyncio = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        follower = asyncio.current_task()
        if follower is not None and follower.cancelling():
            raise asyncio.CancelledError
        yield
    finally:
        signal.signal(signal.SIGINT, of_asyncio)


@asynccontextmanager
async def _ended_by_a_reader_that_left() -> AsyncIterator[None]:
    """Raise BrokenPipeError in the `async with` when the pipe at stdout loses its reader.

    Otherwise the follow of a silent task would not notice before the next entry.
    """
    follower = asyncio.current_task()
    assert follower is not None
    left = False

    async def watch() -> None:
        nonlocal left
        # No event loop tells it everywhere: what is written to a pipe that this process could read,
        # too, looks like a reader that has left, and Windows has no such call for pipes.
        while not has_no_reader(sys.stdout):  # noqa: ASYNC110
            await asyncio.sleep(_READER_CHECK_SECONDS)
        left = True
        follower.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        follower.uncancel()
        raise BrokenPipeError(errno.EPIPE, "the reader of the log has left") from None
    finally:
        watching.cancel()


def _expired(error: CursorExpired) -> str:
    goes_on = f"; the oldest cursor that is still valid: --cursor {error.oldest_cursor}"
    return f"{error.message}{goes_on if error.oldest_cursor else ''}"
