"""Prints tasks as text: one with its details, many as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import IntEnum

from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs import enums
from tasklogs.cli.choices import typed_name
from tasklogs.cli.render.terminal_text import one_line, visible_name
from tasklogs.v1 import tasks_pb2, types_pb2

TABLE_COLUMNS = ("task", "status", "agent", "entries", "log as of")
"""The columns of a row that fit on a terminal."""

_LEAST_NAME = 20
"""The fewest cells of the first column, if any name needs them."""
_GAP = 2

_STATES = {
    types_pb2.TASK_STATUS_ERROR: "in error",
    types_pb2.TASK_STATUS_UNKNOWN: "in an unknown state",
}


def full_name(task: tasks_pb2.Task) -> str:
    """Return `owner/name`."""
    return visible_name(f"{task.owner}/{task.name}")


def status(value: types_pb2.TaskStatus.ValueType) -> str:
    """Return a status as one word."""
    return _word(enums.TaskStatus, value)


def state(value: types_pb2.TaskStatus.ValueType) -> str:
    """Return a status as the words after "the task is"."""
    return _STATES.get(value) or status(value)


def moment(time: Timestamp) -> str:
    """Return `time` to the second, in this machine's time zone, with the offset from UTC.

    In UTC if the time zone cannot tell it: Go's zero time is at the start of the year 1.
    """
    try:
        in_utc = datetime.fromtimestamp(time.seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time.seconds} s after 1970"
    try:
        in_zone = in_utc.astimezone()
    except (ValueError, OverflowError, OSError):
        in_zone = in_utc
    return in_zone.isoformat(" ", "seconds")


def describe(task: tasks_pb2.Task) -> Iterator[str]:
    """Yield the details of `task`, line by line."""
    detail = task.status_detail
    yield f"{full_name(task)} is {state(task.status)}"
    yield _line("id", visible_name(task.id))
    if task.display_name:
        yield _line("called", one_line(task.display_name))
    if task.prompt:
        yield _line("prompt", one_line(task.prompt))
    if task.labels:
        labels = sorted(f"{key}={value}" for key, value in task.labels.items())
        yield _line("labels", one_line(", ".join(labels)))
    yield _line("created", moment(task.created_at))
    yield _line("kind", "standalone" if task.standalone else "orchestrated")
    yield _line("build", f"{_build(detail.build)}: {status(detail.build.computed)}")
    lifecycle = _word(enums.AgentLifecycle, detail.agent.lifecycle)
    yield _line("agent", f"{lifecycle}: {status(detail.agent.computed)}")
    health = _word(enums.AppHealth, detail.app.health)
    yield _line("task app", f"{health}: {status(detail.app.computed)}")
    yield _line("stream", "an agent is connected" if task.agent_connected else "no agent connected")
    yield _line("log", _log(task.log))


def row(task: tasks_pb2.Task) -> tuple[str, ...]:
    """Return the cells of TABLE_COLUMNS, then when the task was created, and its id."""
    log = task.log
    return (
        full_name(task),
        status(task.status),
        "connected" if task.agent_connected else "-",
        str(log.entries),
        moment(log.snapshot_at) if log.HasField("snapshot_at") else "-",
        moment(task.created_at),
        visible_name(task.id),
    )


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print the TABLE_COLUMNS of each row as a table, for a terminal.

    On a narrow terminal the last columns are left out, so that the names of tasks have room.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, console = Table(box=None, pad_edge=False, header_style="bold"), Console()
    shown = [cells[: len(TABLE_COLUMNS)] for cells in rows]
    count = _columns_that_fit([TABLE_COLUMNS, *shown], console.width)
    for column in TABLE_COLUMNS[:count]:
        # People copy the name of a task: wrap it instead of cutting it off.
        table.add_column(column, overflow="fold", no_wrap=column != "task")
    for cells in shown:
        table.add_row(*map(Text, cells[:count]))
    console.print(table)


def _columns_that_fit(rows: Sequence[tuple[str, ...]], width: int) -> int:
    from rich.cells import cell_len

    names, *others = (max(map(cell_len, column)) for column in zip(*rows, strict=True))
    left, count = width - min(names, _LEAST_NAME), 1
    for cells in others:
        left -= cells + _GAP
        if left < 0:
            break
        count += 1
    return count


def _line(label: str, text: str) -> str:
    return f"  {label:<9} {text}"


def _build(build: types_pb2.StatusDetail.Build) -> str:
    if not build.number:
        return "none yet"
    transition = _word(enums.BuildTransition, build.transition)
    return f"{build.number}, {transition} {_word(enums.JobStatus, build.job_status)}"


def _log(log: tasks_pb2.Task.Log) -> str:
    if not log.epoch:
        return "nothing stored yet"
    as_of = f", as of {moment(log.snapshot_at)}" if log.HasField("snapshot_at") else ""
    return (
        f"epoch {log.epoch}, {log.entries} {'entry' if log.entries == 1 else 'entries'},"
        f" revision {log.revision}, {log.bytes:,} bytes{as_of}"
    )


def _word(enum: type[IntEnum], value: int) -> str:
    if not value:
        return "not reported"
    # A newer server may send a value that this version does not know.
    known = value in enum.__members__.values()
    return typed_name(enum(value)) if known else f"{enum.__name__} {value}"
