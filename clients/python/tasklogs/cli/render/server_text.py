"""Prints what a server says about itself, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tasklogs.cli.render.terminal_text import visible_name
from tasklogs.v1 import task_logs_pb2, types_pb2

_TYPE_PREFIX = "TASK_LOG_TYPE_"


def describe(
    info: task_logs_pb2.GetServerInfoResponse, address: str, client_version: str
) -> Iterator[str]:
    """Yield the lines."""
    limits = info.limits
    yield f"tasklogs {visible_name(info.version)} at {visible_name(address)}"
    yield _line("this command", client_version)
    yield _line("features", _list(info.features))
    yield _line("entry types", _list(map(_type, info.entry_types)))
    yield _line("request", f"at most {limits.message_bytes:,} bytes")
    yield _line("entry", f"at most {limits.entry_bytes:,} bytes of content")
    yield _line("page", f"at most {limits.page_entries:,} entries, {limits.page_tasks:,} tasks")
    yield _line("upload", f"at most {limits.upload_bytes:,} bytes of content")
    deadline = limits.default_deadline
    yield _line("deadline", f"{deadline.seconds + deadline.nanos / 1e9:g} s for calls without one")


def _line(label: str, text: str) -> str:
    return f"  {label:<12} {text}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(visible_name, names)) or "none"


def _type(number: int) -> str:
    value = types_pb2.TaskLogType.DESCRIPTOR.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_TYPE_PREFIX)
