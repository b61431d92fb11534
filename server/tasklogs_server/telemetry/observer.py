"""What the rooms tell of their work. This one keeps nothing: telemetry that is off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from tasklogs_server.telemetry.calls import Call

_NOTHING = nullcontext()
_NO_TRACE = nullcontext("")


class Observer:
    """Hears what happens. Every method is called on the hot path: none may wait or raise."""

    def began(self, call: Call) -> None:
        """A call of a known method has come."""

    def ended(self, call: Call, code: str) -> None:
        """It has ended with this status, by its gRPC name."""

    def unknown_method(self) -> None:
        """A call came for what is not served."""

    def limited(self, limit: str) -> None:
        """A call was refused or ended for this limit, or its answer given up."""

    def shaking_hands(self) -> AbstractContextManager[object]:
        """An agent's handshake lasts as long as the block."""
        return _NOTHING

    def syncing(self) -> AbstractContextManager[str]:
        """A sync lasts as long as the block; lends its traceparent, empty where it has no trace."""
        return _NO_TRACE

    def committing(self, *, tasks: int, size_bytes: int) -> AbstractContextManager[object]:
        """A batch of commits lasts as long as the block."""
        return _NOTHING

    def stored(self, lag_seconds: float) -> None:
        """A change is committed, so long after the agent saw it."""
