"""`tasklogs logs`: read a task's log."""

from __future__ import annotations

import sys
from enum import StrEnum
from shutil import get_terminal_size
from typing import Annotated

import typer

from tasklogs import features
from tasklogs.cli.choices import choice_option, choices_option, names_in
from tasklogs.cli.options import (
    TaskArgument,
    check_int32,
    check_seconds,
)
from tasklogs.cli.target import Target, connects
from tasklogs.enums import LogSource, TaskLogType


class LogOutput(StrEnum):
    """How a log is printed."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


@connects
def logs(
    target: Target,
    task: TaskArgument,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print new entries as they come, until Ctrl-C."),
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            metavar="N",
            callback=check_int32(0),
            show_default="all",
            help="Print only the last N entries.",
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        choices_option(
            TaskLogType,
            "--types",
            "Print only entries of these types, separated by commas. --tail counts these alone.",
            show_default="all",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Print all of tool calls, results and notices, also on a terminal.",
        ),
    ] = False,
    output: Annotated[
        LogOutput,
        typer.Option(
            "--output",
            "-o",
            case_sensitive=False,
            help="text: for people. json: one JSON object. jsonl: one JSON line for each entry, or"
            " for each event with -f.",
        ),
    ] = LogOutput.TEXT,
    source: Annotated[
        str | None,
        choice_option(
            LogSource,
            "live: bring the log up to date first, or fail. snapshot: read the stored log.",
            show_default="by the task's status",
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=check_int32(1),
            show_default="the current one",
            help="The epoch to read, numbered from 1. A new epoch begins when the task app starts"
            " a new conversation.",
        ),
    ] = None,
    max_staleness: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=check_seconds,
            show_default="0",
            help="Accept a log whose last sync began at most this long ago.",
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            show_default=False,
            help="With -f: begin after this cursor. -o json and -o jsonl print cursors.",
        ),
    ] = None,
    raw: Annotated[
        bool | None,
        typer.Option(
            "--raw/--escaped",
            show_default="escaped on a terminal",
            help="raw: print the content unchanged. Its control characters can control the terminal"
            " (move the cursor, fill the clipboard). escaped: print them as \\x1b.",
        ),
    ] = None,
) -> None:
    """Read a task's log.

    While the task runs, this prints the live log. While it does not, this prints the stored log. If
    the server can guarantee neither, it refuses the read.

    stderr shows the time of a stored log. On a terminal, the command escapes control characters in
    the content (\\x1b). In a pipe or a file, it prints them unchanged. --raw and --escaped override
    this. JSON has its own escapes.

    On a terminal, a tool call is one line, and of a tool's result or a notice the first lines are
    shown. -v and --raw show them whole. In a pipe or a file, they are always whole.

    Text is without the blanks at the ends of lines and entries. More than three blank lines in a
    row are counted ("… 968 blank lines"). --raw and JSON have the content as it is.

    With -f, the last entry grows in place on a terminal. In a pipe, the command appends growth. If
    the task app rewrites an entry, the command prints the whole entry again, marked, when the entry
    seems final. With -o jsonl, each line is an event with its cursor. Entries are always whole.
    """
    if raw is not None and output is not LogOutput.TEXT:
        raise typer.BadParameter("only with -o text", param_hint="--raw / --escaped")
    if verbose and output is not LogOutput.TEXT:
        raise typer.BadParameter("only with -o text", param_hint="--verbose")
    printed_raw, tidied = _is_raw(raw), raw is not True
    columns = _columns() if not (printed_raw or verbose) else None
    wanted = [TaskLogType[name] for name in names_in(types)]
    if follow:
        _refuse_what_only_a_read_has(tail, output, epoch, max_staleness, cursor)
        _follow(task, source, tail, cursor, wanted, output, printed_raw, tidied, columns, target)
        return
    if cursor is not None:
        raise typer.BadParameter("needs -f", param_hint="--cursor")
    from datetime import timedelta

    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render import log_text
    from tasklogs.v1 import task_logs_pb2, types_pb2

    request = task_logs_pb2.GetTaskLogsRequest(task=task, tail=tail, epoch=epoch)
    request.types.extend(types_pb2.TaskLogType.ValueType(one) for one in wanted)
    if source is not None:
        request.source = task_logs_pb2.LogSource.ValueType(LogSource[source])
    if max_staleness is not None:
        request.max_staleness.FromTimedelta(timedelta(seconds=max_staleness))
    with Connection(target) as connection:
        if wanted:
            connection.require(features.TYPES_FILTER, "--types")
        pages = connection.pages(connection.task_logs.GetTaskLogs, request)
        first = next(pages)
        log_text.print_notices(first, task, tail=tail, epoch=epoch, some_types=bool(wanted))
        match output:
            case LogOutput.TEXT:
                log_text.print_text(first, pages, raw=printed_raw, tidied=tidied, columns=columns)
            case LogOutput.JSON:
                log_text.print_object(first, pages)
            case LogOutput.JSONL:
                log_text.print_lines(first, pages)


def _refuse_what_only_a_read_has(
    tail: int | None,
    output: LogOutput,
    epoch: int | None,
    max_staleness: float | None,
    cursor: str | None,
) -> None:
    if output is LogOutput.JSON:
        raise typer.BadParameter("a follow has no end: use jsonl with -f", param_hint="--output")
    if epoch is not None:
        raise typer.BadParameter("-f follows the current epoch", param_hint="--epoch")
    if max_staleness is not None:
        raise typer.BadParameter("not with -f", param_hint="--max-staleness")
    if tail is not None and cursor is not None:
        raise typer.BadParameter("not with --tail", param_hint="--cursor")


def _follow(
    task: str,
    source: str | None,
    tail: int | None,
    cursor: str | None,
    types: list[TaskLogType],
    output: LogOutput,
    raw: bool,
    tidied: bool,
    columns: int | None,
    target: Target,
) -> None:
    try:
        from tasklogs.cli.follow import follow_log

        follow_log(
            task,
            source=None if source is None else LogSource[source],
            tail=tail,
            cursor=cursor,
            types=types,
            as_lines=output is LogOutput.JSONL,
            raw=raw,
            tidied=tidied,
            columns=columns,
            target=target,
        )
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of a follow, however early it comes.
        return


def _is_raw(raw: bool | None) -> bool:
    return not sys.stdout.isatty() if raw is None else raw


def _columns() -> int | None:
    """Return the width of the terminal; None: stdout is none, so nothing is shortened."""
    return get_terminal_size().columns if sys.stdout.isatty() else None
