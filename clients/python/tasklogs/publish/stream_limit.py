"""How many bytes one stream may carry through a proxy: found out from streams that broke.

A proxy may limit the size of a request, and count a whole stream as one request (nginx:
`client_max_body_size`, 1 MiB by default). It then resets the stream without a word about the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tasklogs.publish.event_log import EventLog

_log = EventLog()

_LEAST_BYTES = 64 * 1024
"""The smallest limit. A stream that broke with fewer bytes says nothing about a limit."""
_MOST_BYTES = 64 * 1024 * 1024
"""A limit that has grown beyond this is forgotten."""
_KEPT_SECONDS = 600.0
"""After this time the limit doubles: the proxy may have another one now, or it broke by chance."""
_PREFIX_BYTES = 5
"""What gRPC puts before each message."""
_RESERVED_BYTES = 4096
"""What a stream keeps for the messages that are not appends."""


@dataclass(slots=True)
class Carried:
    """What one stream has carried, in bytes of messages with gRPC's prefix."""

    limit_bytes: int | None
    """The most that it may carry; None if no limit is known."""
    sent_bytes: int = 0
    appended_bytes: int = 0
    """How many of them were sent before or with the last append."""
    stored_bytes: int = 0
    """How many of them were sent before or with the last append that was acknowledged."""

    def count(self, message_bytes: int, *, is_append: bool) -> None:
        """Count a message that is sent next."""
        self.sent_bytes += message_bytes + _PREFIX_BYTES
        if is_append:
            self.appended_bytes = self.sent_bytes

    def acknowledged(self) -> None:
        """Record that the last append is stored."""
        self.stored_bytes = self.appended_bytes

    @property
    def is_limited(self) -> bool:
        """Whether an entry that is too large for this stream must be sent in parts."""
        return self.limit_bytes is not None

    def append_bytes(self, most: int) -> int:
        """Return how long the next append may be, at most `most`."""
        if self.limit_bytes is None:
            return most
        return min(most, max(_RESERVED_BYTES, self._left_bytes() - _RESERVED_BYTES))

    def is_used_up(self, *, for_append: bool) -> bool:
        """Whether the next message, or the next append, belongs on a new stream."""
        if self.limit_bytes is None:
            return False
        # A smaller rest would cut entries into small parts.
        least = self.limit_bytes // 4 if for_append else _RESERVED_BYTES // 2
        return self._left_bytes() < least

    def _left_bytes(self) -> int:
        assert self.limit_bytes is not None
        return self.limit_bytes - self.sent_bytes


class StreamLimit:
    """The limit that this agent has found. It outlives the streams."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._clock = clock
        self._limit_bytes: int | None = None
        self._found_at = 0.0
        self._suspected: tuple[int, int] | None = None
        """What the last stream that broke had stored and sent: a limit would be between."""

    def new_stream(self) -> Carried:
        """Return the account of a new stream."""
        now = self._clock()
        if self._limit_bytes is not None and now - self._found_at >= _KEPT_SECONDS:
            self._limit_bytes, self._found_at = 2 * self._limit_bytes, now
            if self._limit_bytes > _MOST_BYTES:
                self._limit_bytes = None
        return Carried(self._limit_bytes)

    def broke(self, carried: Carried, *, was_reset: bool) -> None:
        """Learn from a stream that broke, without a word of the server, under an append.

        `was_reset`: the stream broke, and not its connection.
        """
        if carried.sent_bytes < _LEAST_BYTES:
            return
        low, high = carried.stored_bytes, carried.sent_bytes
        suspected, self._suspected = self._suspected, (low, high)
        if was_reset and not low:
            self._found(high // 2, carried)
        elif suspected is not None:
            # One such end may have any cause. A limit lies between what passed and what broke, on
            # each stream.
            low, high = max(low, suspected[0]), min(high, suspected[1])
            if low <= high:
                self._found(low or high // 2, carried)

    def _found(self, limit_bytes: int, carried: Carried) -> None:
        self._limit_bytes = max(_LEAST_BYTES, limit_bytes)
        self._found_at = self._clock()
        _log.warning(
            "stream_limit.found",
            limit_bytes=self._limit_bytes,
            sent_bytes=carried.sent_bytes,
            stored_bytes=carried.stored_bytes,
        )
