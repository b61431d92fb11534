"""The current call: its request id, its caller and its task."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Hashable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

REQUEST_ID = "x-request-id"
"""The key of the request id in the metadata of requests and responses."""

_SANE_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
# Agent tokens and JWTs: a token in the wrong header must not be logged.
_SECRETS = ("tla_", "eyJ")

Metadata = Sequence[tuple[str, str | bytes]]

_current: ContextVar[Call | None] = ContextVar("tasklogs_call", default=None)


class Call:
    """One RPC. It is current in the asyncio task that serves it, and in tasks that this starts."""

    __slots__ = (
        "began",
        "caller",
        "metadata",
        "method",
        "request_id",
        "span",
        "task_id",
        "traceparent",
    )

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.metadata = metadata
        """What the caller sent. It has the caller's token: none of it is logged as it is."""
        self.began = time.perf_counter()
        given = ""
        self.traceparent = ""
        self.task_id: UUID | None = None
        self.caller: Hashable = None
        """Who shares turns with others under this name; None until the caller is known."""
        self.span: Any = None
        """The call's span, if it is traced."""
        for key, value in metadata:
            if key == REQUEST_ID and _is_sane(value):
                given = str(value)
            elif key == "traceparent" and isinstance(value, str):
                self.traceparent = value
        self.request_id = given or f"{random.getrandbits(64):016x}"
        """`x-request-id` if the caller sent a valid one, else 16 hexadecimal digits."""

    def make_current(self) -> None:
        """Make everything that this asyncio task does from now on part of the call."""
        _current.set(self)


def current() -> Call | None:
    """Return the call that the current asyncio task is part of."""
    return _current.get()


def current_caller() -> Hashable:
    """Return who made the current call; None for what the server does by itself."""
    call = _current.get()
    return None if call is None else call.caller


def concerns(task_id: UUID) -> None:
    """Note which task the current call is about, if there is a call."""
    call = _current.get()
    if call is not None:
        call.task_id = task_id


def with_call(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the current call's request id and task to a line of the log: a structlog processor."""
    call = _current.get()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        if call.task_id is not None:
            event.setdefault("task", str(call.task_id))
    return event


def _is_sane(value: str | bytes) -> bool:
    return (
        isinstance(value, str)
        and _SANE_ID.fullmatch(value) is not None
        and not value.startswith(_SECRETS)
    )
