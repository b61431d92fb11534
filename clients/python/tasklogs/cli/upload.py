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

from tasklogs.cli.agent_token_option import (
    AgentTokenFileOption,
    AgentTokenOption,
    given_token,
)
from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import (
    DEFAULT_SERVER,
    DEFAULT_TIMEOUT_SECONDS,
    ServerOption,
    TimeoutOption,
    TlsCaOption,
    TlsClientCertOption,
    TlsClientKeyOption,
    TlsOption,
)
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.target import Target, chosen_tls, warn_of_plain_text


def upload(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines, as the source `jsonl` reads them (docs/sources.md).",
            show_default=False,
        ),
    ],
    server: ServerOption = DEFAULT_SERVER,
    token: AgentTokenOption = None,
    token_file: AgentTokenFileOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_client_cert: TlsClientCertOption = None,
    tls_client_key: TlsClientKeyOption = None,
) -> None:
    """Store a whole conversation from a file of JSON lines.

    If the file continues the stored conversation, only what is new is stored. Otherwise it becomes
    another epoch. Lines without a time get the time at which the file was changed last: a file that
    has grown continues the stored conversation only if its lines have times. If the file has
    several epochs, only the last one is uploaded. The command fails while an agent of the task is
    connected.
    """
    import asyncio

    from tasklogs.cli.rpc_failure import describe
    from tasklogs.errors import TaskLogsRpcError

    found = given_token(context, token, token_file)
    chosen = chosen_tls(tls, tls_ca, tls_client_cert, tls_client_key)
    warn_of_plain_text(server, chosen)
    target = Target(server, timeout, chosen, lambda: found)
    entries = _entries(file)
    try:
        uploaded = asyncio.run(_upload(target, entries))
    except TaskLogsRpcError as error:
        raise CommandFailed(
            describe(error, target.server, target.timeout_seconds, target.tls)
        ) from error
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    write_line(f"uploaded {count}: the log is at revision {uploaded.revision}")


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
                    if found.replaces and entries:
                        entries.pop()
                    entries.append(_entry(found, written_at))
    if left_out:
        are = "line is no entry: it is" if left_out == 1 else "lines are no entries: they are"
        print_notice(f"{left_out} {are} left out")
    return entries


def _entry(record: Record, written_at: datetime) -> Entry:
    from datetime import UTC, datetime, timedelta

    from tasklogs.client.new_entry import Entry
    from tasklogs.enums import TaskLogType
    from tasklogs.log.names import fitted_names

    names = fitted_names(*record.names)
    time = written_at
    if record.time is not None:
        since = timedelta(seconds=record.time.seconds, microseconds=record.time.nanos // 1000)
        time = datetime(1970, 1, 1, tzinfo=UTC) + since
    return Entry(
        type=TaskLogType(int(record.type)),
        content=record.content,
        time=time,
        source_id=names.source_id,
        name=names.name,
        call_id=names.call_id,
    )
