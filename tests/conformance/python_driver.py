"""The driver of the Python client. See tests/conformance/__init__.py."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Progress,
    Reconnected,
    Reconnecting,
    ReconnectWaits,
    StatusChanged,
    TaskLogsClient,
    TaskLogsRpcError,
)


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def told(state: Reconnecting | Reconnected) -> None:
    match state:
        case Reconnecting():
            delay_ms = state.delay / timedelta(milliseconds=1)
            say(event="reconnecting", attempt=state.attempt, delay_ms=delay_ms)
        case Reconnected():
            say(event="reconnected")


def say_event(event: FollowEvent) -> None:
    match event:
        case StatusChanged():
            say(
                event="status",
                cursor=event.cursor,
                status=event.status.name,
                task_id=event.task_id or "",
            )
        case EntriesChanged():
            changes = [change_of(change) for change in event.changes]
            say(event="entries", cursor=event.cursor, epoch=event.epoch, changes=changes)
        case EntryWithdrawn():
            say(
                event="withdrawn",
                cursor=event.cursor,
                epoch=event.epoch,
                id=event.id,
                revision=event.revision,
            )
        case EpochStarted():
            say(event="epoch", cursor=event.cursor, epoch=event.epoch, revision=event.revision)
        case CaughtUp():
            say(event="caught_up", cursor=event.cursor)
        case Progress():
            say(event="progress", cursor=event.cursor)


def change_of(change: EntryChange) -> dict[str, Any]:
    return {
        "id": change.entry.id,
        "type": int(change.entry.type),
        "content": change.entry.content,
        "time_ns": change.entry.time_ns,
        "revision": change.entry.revision,
        "dropped_bytes": change.entry.dropped_bytes,
        "source_id": change.entry.source_id,
        "name": change.entry.name,
        "call_id": change.entry.call_id,
        "replaces": change.replaces or 0,
        "kept_bytes": len(change.entry.content[: change.kept].encode()),
        "appended": change.appended,
    }


async def follow(order: dict[str, Any]) -> None:
    tokens = iter(order.get("tokens") or ())
    last = ""

    def token() -> str:
        nonlocal last
        last = next(tokens, last)
        return last

    waits = ReconnectWaits(
        first=timedelta(milliseconds=order["first_wait_ms"]),
        cap=timedelta(milliseconds=order["most_wait_ms"]),
    )
    async with TaskLogsClient(
        order["target"], token=token if order.get("tokens") else None, reconnect_waits=waits
    ) as client:
        count = 0
        events = client.follow(
            order["task"],
            cursor=order.get("cursor") or None,
            tail=order.get("tail"),
            progress=bool(order.get("progress")),
            on_reconnect=told,
        )
        try:
            async for event in events:
                say_event(event)
                count += 1
                is_last = isinstance(event, StatusChanged) and (
                    event.status.name == order.get("until_status")
                )
                if is_last or count == order.get("until_events"):
                    break
        except TaskLogsRpcError as error:
            say(
                event="error",
                code=error.code.value[0],
                reason=error.reason or "",
                message=error.message,
                oldest_cursor=error.metadata.get("oldest_cursor", ""),
            )
            return
        say(event="left")


for text in sys.stdin:
    asyncio.run(follow(json.loads(text)))
