"""Prints a task's log: as text or as JSON, page by page, so that it is never whole in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeAlias

from tasklogs.cli.render import brief
from tasklogs.cli.render.protobuf_json import print_array, to_dict, to_line
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write, write_line
from tasklogs.cli.render.task_text import moment, state
from tasklogs.cli.render.terminal_text import (
    BOLD,
    DIM,
    PLAIN,
    colours_wanted,
    visible,
    visible_name,
)
from tasklogs.cli.render.tidy import tidy
from tasklogs.cli.render.tool_calls import ToolCalls
from tasklogs.v1 import task_logs_pb2, types_pb2

Page: TypeAlias = task_logs_pb2.GetTaskLogsResponse

_SPEAKERS = {
    types_pb2.TASK_LOG_TYPE_INPUT: "user",
    types_pb2.TASK_LOG_TYPE_OUTPUT: "agent",
    types_pb2.TASK_LOG_TYPE_TOOL_CALL: "tool call",
    types_pb2.TASK_LOG_TYPE_TOOL_RESULT: "tool result",
    types_pb2.TASK_LOG_TYPE_THOUGHT: "thought",
    types_pb2.TASK_LOG_TYPE_NOTICE: "notice",
}
_DIM_TYPES = frozenset({types_pb2.TASK_LOG_TYPE_THOUGHT, types_pb2.TASK_LOG_TYPE_NOTICE})


def print_notices(
    first: Page, task: str, *, tail: int | None, epoch: int | None, some_types: bool = False
) -> None:
    """Print on stderr whether the log is a stored one, its time, and whether it is empty.

    `some_types`: the entries are only those of some types.
    """
    name = visible_name(task)
    if first.snapshot:
        if first.HasField("snapshot_at"):
            of_when = f"the log as stored at {moment(first.snapshot_at)}"
        else:
            of_when = "nothing has been stored yet"
        print_notice(f"{name} is {state(first.status)}: {of_when}")
    if not first.logs and tail != 0 and (first.HasField("snapshot_at") or not first.snapshot):
        print_notice(f"{name}: no entries{' of these types' if some_types else ''}")
    elif epoch is None and first.epoch > 1:
        print_notice(f"{name}: epoch {first.epoch}; earlier conversations with --epoch")


def print_text(
    first: Page,
    pages: Iterable[Page],
    *,
    raw: bool,
    tidied: bool = False,
    columns: int | None = None,
) -> None:
    """Print each entry under a heading. `raw`: print control characters as they are.

    `tidied`: leave out what screens are padded with. `columns`: shorten tool calls, results and
    notices for a terminal of this width.
    """
    coloured, calls = colours_wanted(), ToolCalls()
    for entry in _entries(first, pages):
        call = calls.call_of(entry.id, entry.type, entry.call_id)
        above, content = heading(entry, call), tidy(entry.content) if tidied else entry.content
        if columns is not None:
            content = brief.short(entry.type, above, content, columns)
        content = content if raw else visible(content)
        if columns is not None and brief.is_one_line(entry.type):
            write(f"{content}\n\n")
            continue
        of_heading, of_content, plain = styles(entry.type) if coloured else ("", "", "")
        write(f"{of_heading}{above}{plain}\n")
        write(f"{of_content}{content}{plain}" if of_content and not raw else content)
        write("\n" if content.endswith("\n") else "\n\n")


def print_lines(first: Page, pages: Iterable[Page]) -> None:
    """Print each entry as JSON on one line."""
    for entry in _entries(first, pages):
        write_line(to_line(to_dict(entry)))


def print_object(first: Page, pages: Iterable[Page]) -> None:
    """Print one object: the fields of the first page, then all entries."""
    header = Page()
    header.CopyFrom(first)
    header.ClearField("logs")
    members = to_dict(header)
    del members["logs"], members["nextPageToken"]
    write_line("{")
    for name, value in members.items():
        write_line(f'"{name}": {to_line(value)},')
    write('"logs": ')
    print_array(_entries(first, pages), end="\n}\n")


def _entries(first: Page, pages: Iterable[Page]) -> Iterator[types_pb2.TaskLogEntry]:
    for page in chain([first], pages):
        yield from page.logs


def styles(type_: int) -> tuple[str, str, str]:
    """Return what begins the style of an entry's heading, of its content, and what ends both."""
    return (DIM, DIM, PLAIN) if type_ in _DIM_TYPES else (BOLD, "", PLAIN)


def heading(entry: types_pb2.TaskLogEntry, call: int | None = None) -> str:
    """Return the heading of an entry: its id, its author or type, its name and its time.

    `call`: the id of the tool call that it is the result of, if the heading names it.
    """
    speaker = _SPEAKERS.get(entry.type, f"type {entry.type}")
    if entry.name:
        speaker = f"{speaker} {visible_name(entry.name)}"
    if call is not None:
        speaker = f"{speaker} of #{call}"
    dropped = f", without its first {entry.dropped_bytes:,} bytes" if entry.dropped_bytes else ""
    return f"#{entry.id} {speaker}, {moment(entry.time)}{dropped}"
