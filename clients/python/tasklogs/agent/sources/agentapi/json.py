"""Decodes AgentAPI's JSON into entries."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.log import rfc3339
from tasklogs.log.entry import Entry, EntryType
from tasklogs.log.text import to_utf8
from tasklogs.log.truncation import truncate

_TYPES = {"user": EntryType.INPUT, "agent": EntryType.OUTPUT}
_MAX_ID = 2**31 - 1


def messages(body: bytes) -> list[Entry]:
    """Return the conversation in the body of `GET /messages`, in order.

    Raises TaskAppError: TORN if the list shrank while it was read, NONSENSE if it is not a list.
    """
    items = _object(body, "/messages").get("messages")
    if not isinstance(items, list):
        raise _nonsense("/messages: no list of messages")
    entries = [_entry(item, "content", "/messages") for item in items]
    check_order(entries, "/messages")
    return entries


def message_update(data: str) -> Entry:
    """Return the entry that a `message_update` event shows."""
    return _entry(_object(data, "/events"), "message", "/events")


def status_change(data: str) -> str:
    """Return the status of a `status_change` event: `running` or `stable`."""
    status = _object(data, "/events").get("status")
    if not isinstance(status, str):
        raise _nonsense("/events: a status_change without a status")
    return status


def check_order(entries: list[Entry], where: str) -> None:
    """Raise TaskAppError unless the ids increase."""
    for earlier, later in pairwise(entries):
        if later.id <= earlier.id:
            raise _nonsense(f"{where}: message {later.id} follows message {earlier.id}")


def _object(data: bytes | str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        # The message of the decoder may quote the text.
        raise _nonsense(f"{where}: not JSON") from None
    if not isinstance(value, dict):
        raise _nonsense(f"{where}: not a JSON object")
    return value


def _entry(item: object, content_key: str, where: str) -> Entry:
    if not isinstance(item, dict):
        raise _nonsense(f"{where}: a message is not an object")
    entry_id, role = item.get("id"), item.get("role")
    content, time = item.get(content_key), item.get("time")
    if type(entry_id) is not int or not 0 <= entry_id <= _MAX_ID:
        raise _nonsense(f"{where}: a message without a valid id")
    if role == "":
        raise TaskAppError(Fault.TORN, f"{where}: message {entry_id} has an empty role")
    entry_type = _TYPES.get(role) if isinstance(role, str) else None
    if entry_type is None:
        raise _nonsense(f"{where}: message {entry_id} has an unknown role")
    if not isinstance(content, str) or not isinstance(time, str):
        raise _nonsense(f"{where}: message {entry_id} lacks its content or time")
    try:
        moment = rfc3339.parse(time)
    except ValueError:
        raise _nonsense(f"{where}: message {entry_id} has an invalid time") from None
    dropped, kept = truncate(to_utf8(content))
    return Entry(entry_id, entry_type, moment, kept, dropped)


def _nonsense(reason: str) -> TaskAppError:
    return TaskAppError(Fault.NONSENSE, reason)
