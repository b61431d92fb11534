"""`tasklogs upload`: stores a whole conversation from a file of JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from tasklogs.agent.sources.record import Record
    from tasklogs.client.new_entry import Entry
    from tasklogs.client.upload import UploadedLog

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.target import Target, connects


@connects
def upload(
    target: Target,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines, as the source `jsonl` reads them (docs/sources.md).",
            show_default=False,
        ),
    ],
) -> None:
    """Store a whole conversation from a file of JSON lines. The token is the task's agent token.

    If the file continues the stored conversation, only what is new is stored. Otherwise it becomes
    another epoch. Lines without a time get the time of the file. Only the last epoch of the file is
    uploaded. It fails while an agent of the task is connected.
    """
    import asyncio

    from tasklogs.cli.rpc_failure import describe
    from tasklogs.errors import TaskLogsRpcError

    entries = _entries(file)
    try:
        uploaded = asyncio.run(_upload(target, entries))
    except TaskLogsRpcError as error:
        raise CommandFailed(
            describe(error, target.server, target.timeout_seconds, target.tls)
        ) from error
    write_line(f"uploaded {len(entries)} entries: the log is at revision {uploaded.revision}")


async def _upload(target: Target, entries: list[Entry]) -> UploadedLog:
    from datetime import timedelta

    from tasklogs.client.client import TaskLogsClient

    limit = timedelta(seconds=target.timeout_seconds)
    async with TaskLogsClient(
        target.server, token=target.token, tls=target.tls, timeout=limit
    ) as client:
        return await client.upload_log(entries)


def _entries(file: Path) -> list[Entry]:
    """Return the entries of the file's last epoch."""
    from datetime import UTC, datetime

    from tasklogs.agent.sources.jsonl import JsonLines
    from tasklogs.agent.sources.record import LeftOut, NewEpoch, Record

    try:
        lines = file.read_bytes().split(b"\n")
        written_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from None
    form = JsonLines()
    entries: list[Entry] = []
    left_out = 0
    for line in lines:
        for found in form.parse(line):
            match found:
                case NewEpoch():
                    form.begins()
                    entries.clear()
                case LeftOut():
                    left_out += 1
                case Record():
                    entry = _entry(found, written_at)
                    if found.replaces and entries and _is_same(entries[-1], entry):
                        entries.pop()
                    entries.append(entry)
    if left_out:
        print_notice(f"{left_out} lines are no entries: they are left out")
    return entries


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether both are versions of one entry, as the agent sees it."""
    return (one.type, one.source_id, one.name, one.call_id) == (
        other.type,
        other.source_id,
        other.name,
        other.call_id,
    )


def _entry(record: Record, written_at: datetime) -> Entry:
    from datetime import UTC, datetime, timedelta

    from tasklogs.client.new_entry import Entry
    from tasklogs.enums import TaskLogType
    from tasklogs.log.names import fitted_names

    time = written_at
    if record.time is not None:
        since = timedelta(seconds=record.time.seconds, microseconds=record.time.nanos // 1000)
        time = datetime(1970, 1, 1, tzinfo=UTC) + since
    source_id, name, call_id = fitted_names(*record.names)
    return Entry(
        type=TaskLogType(int(record.type)),
        content=record.content,
        time=time,
        source_id=source_id,
        name=name,
        call_id=call_id,
    )
