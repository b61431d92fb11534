"""What the packages report of their work. This observer ignores it: telemetry is off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from tasklogs_server.telemetry.calls import Call

_NOTHING = nullcontext()
_NO_TRACE = nullcontext("")


class Observer:
    """Receives reports. Every method is called on the hot path: it must not wait or raise."""

    def began(self, call: Call) -> None:
        """A call of a known method begins."""

    def ended(self, call: Call, code: str) -> None:
        """The call ended with this status, by its gRPC name."""

    def unknown_method(self) -> None:
        """A call of a method came that is not served."""

    def limited(self, limit: str) -> None:
        """This limit refused or ended a call, or gave up its response."""

    def shaking_hands(self) -> AbstractContextManager[object]:
        """An agent's handshake lasts as long as the block."""
        return _NOTHING

    def syncing(self) -> AbstractContextManager[str]:
        """A sync lasts as long as the block; lends its traceparent, empty without a trace."""
        return _NO_TRACE

    def committing(self, *, tasks: int, size_bytes: int) -> AbstractContextManager[object]:
        """A batch of commits lasts as long as the block."""
        return _NOTHING

    def stored(self, lag_seconds: float) -> None:
        """A change is committed, `lag_seconds` after its agent saw it."""
