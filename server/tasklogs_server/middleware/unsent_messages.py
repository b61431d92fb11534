"""The messages of follows that callers have not read yet.

They are a part of the unread responses (see Responses). A follow waits for room before it makes its
next messages, and holds none while it waits: changes of an entry coalesce meanwhile, and nothing is
left out. When follows wait, those that have waited longest for a caller that does not read are
ended. Their callers resume from their cursors.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from operator import attrgetter

from tasklogs_server.concurrency.wake import Settable
from tasklogs_server.domain.caller import Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.handlers import Call, Context
from tasklogs_server.middleware.responses import Responses, Unread, recipient_of

# The part of `answer_bytes` that all follows may hold, and the part of one caller. The rest is for
# unary calls, which are refused when there is no room, and do not wait.
_SHARE = 0.5
_CALLER_SHARE = 0.25
# There is half as much again for small messages: those who do not read must not delay them.
_SMALL_BYTES = 256 * 1024
_FOR_SMALL = 1.5
# Not counted: an idle stream costs more. Most messages are of this kind, and must stay cheap.
_TINY_BYTES = 4096
# To end a stream takes a look at all tasks of the process.
_LOOKS = 4
_RETRY_AFTER = timedelta(seconds=1)


class UnsentMessages:
    """What all follows together hold for their callers, and the follows that wait for room."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._looks = 0
        self._small_waiting = 0
        self._waiting: dict[Hashable, OrderedDict[SendingStream, None]] = {}
        """By recipient, so that no caller waits behind the streams of another."""
        responses.on_look = self._make_room

    @property
    def waiting(self) -> int:
        """How many follows wait for room. Thread-safe."""
        return sum(len(streams) for streams in list(self._waiting.values()))

    @contextmanager
    def stream(self, caller: Caller | None, context: Context) -> Iterator[SendingStream]:
        """Count what the current call sends."""
        call = asyncio.current_task()
        assert call is not None
        stream = SendingStream(self, self._responses, call, recipient_of(caller, context))
        try:
            yield stream
        finally:
            stream.close()

    def has_room(self, recipient: Hashable, size_bytes: int, *, own_bytes: int = 0) -> bool:
        """Whether `recipient` may hold `size_bytes` more, instead of `own_bytes`.

        The last message may exceed the limit: `size_bytes` only decides which limit applies.
        """
        limit = self._responses.limit_bytes * (_FOR_SMALL if size_bytes <= _SMALL_BYTES else 1)
        of_all = self._responses.stream_bytes - own_bytes
        of_caller = self._responses.held_by(recipient) - own_bytes
        return of_all < limit * _SHARE and of_caller < limit * _CALLER_SHARE

    def wait(self, stream: SendingStream) -> None:
        """Queue a stream behind those of the same recipient."""
        self._waiting.setdefault(stream.recipient, OrderedDict())[stream] = None
        self._responses.on_release = self._grant
        self._small_waiting += stream.wanted_bytes <= _SMALL_BYTES

    def is_first(self, recipient: Hashable, size_bytes: int) -> bool:
        """Whether no stream of this recipient waits, or these bytes need not wait behind them."""
        return size_bytes <= _SMALL_BYTES or recipient not in self._waiting

    def leave(self, stream: SendingStream) -> None:
        """Remove a stream from the queue."""
        streams = self._waiting[stream.recipient]
        del streams[stream]
        self._small_waiting -= stream.wanted_bytes <= _SMALL_BYTES
        if not streams:
            del self._waiting[stream.recipient]
        if not self._waiting:
            self._responses.on_release = None

    def _grant(self) -> None:
        """Give what is free to streams that wait: first to the recipient that holds least."""
        while (stream := self._next()) is not None:
            self.leave(stream)
            stream.grant()

    def _next(self) -> SendingStream | None:
        if not self._waiting:
            return None
        least = min(self._waiting, key=self._responses.held_by)
        others = self._waiting if self._small_waiting else ()  # only they may have room
        for recipient in (least, *others):
            stream = next(iter(self._waiting[recipient]))
            if self.has_room(recipient, stream.wanted_bytes):
                return stream
        return None

    def _make_room(self) -> None:
        """Give up streams whose callers do not read, for those that wait."""
        self._looks += 1
        if not self._waiting or self._looks % _LOOKS:
            return
        responses, limit = self._responses, self._responses.limit_bytes
        slow: set[Call] = set()
        wanted_by_all = 0
        for recipient, streams in self._waiting.items():
            wanted = sum(stream.wanted_bytes for stream in streams)
            wanted_by_all += wanted
            if responses.held_by(recipient) >= limit * _CALLER_SHARE:
                slow |= set(responses.slow_ones(wanted, partial(_is_stream_to, recipient)))
        if responses.stream_bytes >= limit * _SHARE:
            slow |= set(responses.slow_ones(wanted_by_all, attrgetter("is_stream")))
        responses.give_up(slow, Limit.ANSWER_BYTES)
        self._grant()


def _is_stream_to(recipient: Hashable, unread: Unread) -> bool:
    return unread.is_stream and unread.recipient == recipient


class SendingStream:
    """What one follow holds for its caller; the SendBudget of the follow."""

    def __init__(
        self, all_streams: UnsentMessages, responses: Responses, call: Call, recipient: Hashable
    ) -> None:
        self.recipient = recipient
        self.wanted_bytes = 0
        self._all = all_streams
        self._responses = responses
        self._call = call
        self._unread = responses.stream(call, recipient, self._end)
        self._woken: Settable | None = None
        self._is_granted = False
        self._is_late = False

    @property
    def is_waiting(self) -> bool:
        """Whether its turn has not come yet."""
        return self._woken is not None

    def acquire(self, size_bytes: int, woken: Settable) -> bool:
        """See SendBudget."""
        if self._woken is not None:
            return False
        if size_bytes <= _TINY_BYTES and not self._unread.bytes:
            return True
        if self._is_granted and size_bytes < self.wanted_bytes:
            return True  # of a read: the turn is for the messages that follow
        granted, self._is_granted = self._is_granted, False
        if granted or (
            self._all.is_first(self.recipient, size_bytes)
            and self._all.has_room(self.recipient, size_bytes, own_bytes=self._unread.bytes)
        ):
            self._responses.hold(self._unread, size_bytes)
            return True
        self.release()
        self.wanted_bytes = size_bytes
        self._woken = woken
        self._all.wait(self)
        return False

    def release(self) -> None:
        """See SendBudget."""
        self._is_granted = False
        if self._unread.bytes:
            self._responses.hold(self._unread, 0)

    def grant(self) -> None:
        """It is this stream's turn: what it wanted is held for it."""
        assert self._woken is not None
        self._responses.hold(self._unread, self.wanted_bytes)
        self._is_granted = True
        self._woken.set()
        self._woken = None

    async def write(self, context: Context, message: bytes) -> None:
        """Send a message. Raises LimitExceeded if the caller reads nothing for too long."""
        self._responses.writes(self._call, self._unread)
        try:
            await context.write(message)
        except asyncio.CancelledError:
            if not self._is_late:
                raise
            self._call.uncancel()
            self._responses.hold(self._unread, len(message))  # gRPC's copy
            what = "a message of the follow was not read in time"
            raise LimitExceeded(Limit.ANSWER_TIMEOUT, "caller", what, _RETRY_AFTER) from None
        self._responses.wrote(self._call)

    def close(self) -> None:
        """Leave the queue. What gRPC still sends counts until the call is over."""
        if self._woken is not None:
            self._woken = None
            self._all.leave(self)
        if self._unread.since is None:
            self.release()

    def _end(self) -> None:
        self._is_late = True
        self._call.cancel()
