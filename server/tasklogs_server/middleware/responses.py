"""Responses that callers have not read yet.

Each one holds its bytes. A caller that reads nothing never raises an error. So there is a limit to
the time of one response, to the bytes of all, and to the bytes of one caller: callers who read do
not wait for those who do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

from tasklogs_server.concurrency.stall_free_clock import StallFreeClock
from tasklogs_server.domain.caller import LOCAL, Agent, Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.handlers import Call, Context
from tasklogs_server.telemetry.observer import Observer

# A caller who reads a response within this time is not slow. When bytes are short, responses to
# slow callers are given up first.
_SLOW_SECONDS = 2.0
# The part of all bytes that one caller may have unread.
_SHARE = 0.5
_RETRY_AFTER = timedelta(seconds=1)


@dataclass(slots=True, eq=False)
class Unread:
    """What one call holds for its caller. It counts as unread while `since` is not None."""

    recipient: Hashable
    bytes: int
    since: float | None
    """When the response, or a message of a stream, was given to gRPC."""
    is_late: Callable[[], None] | None = None
    """Ends a stream with a status when its message stays unread for too long. Called once."""
    is_stream: bool = False
    read_at: float = -math.inf
    """When the caller was last seen to read: a message was sent that had waited for it."""


class Responses:
    """The unread responses, in the order in which they were given."""

    def __init__(
        self,
        limit_bytes: int,
        within: timedelta,
        *,
        reset: Callable[[Collection[Call]], None],
        observer: Observer | None = None,
    ) -> None:
        """`within`: how long one response may stay unread; `reset` ends calls at once."""
        self.limit_bytes = limit_bytes
        self._caller_limit_bytes = limit_bytes * _SHARE
        self.on_look: Callable[[], None] = lambda: None
        """Called several times a second."""
        self.on_release: Callable[[], None] | None = None
        """Called when bytes are free again."""
        self._within = within.total_seconds()
        self._clock = StallFreeClock(min(self._within, _SLOW_SECONDS))
        self._reset = reset
        self._observer = observer or Observer()
        self._of_calls: dict[Call, Unread] = {}
        self._unread: dict[Call, Unread] = {}
        """Those that are being sent; the oldest comes first."""
        self._held = 0
        self.stream_bytes = 0
        """Those of the bytes that streams hold."""
        self._held_by: dict[Hashable, int] = {}

    @property
    def held_bytes(self) -> int:
        """The bytes of all unread responses."""
        return self._held

    def held_by(self, recipient: Hashable) -> int:
        """Return the bytes of the unread responses to one caller."""
        return self._held_by.get(recipient, 0)

    def admit(self, recipient: Hashable) -> None:
        """Raise LimitExceeded if the recipient may not have one more unread response."""
        if self._held:
            self.check(recipient)

    def check(self, recipient: Hashable) -> None:
        """Raise LimitExceeded if the recipient may not have one more unread response."""
        if self._held_by.get(recipient, 0) >= self._caller_limit_bytes:
            what = f"more than {self.limit_bytes * _SHARE:.0f} bytes of unread responses"
            raise LimitExceeded(Limit.ANSWER_BYTES, "caller", what, _RETRY_AFTER)
        if self._held >= self.limit_bytes:
            slow = self.slow_ones(self._held - self.limit_bytes, lambda _: True)
            self.give_up(slow, Limit.ANSWER_BYTES)
            if self._held >= self.limit_bytes:
                what = f"more than {self.limit_bytes} bytes of unread responses"
                raise LimitExceeded(Limit.ANSWER_BYTES, "server", what, _RETRY_AFTER)

    def began(self, call: Call, recipient: Hashable, size_bytes: int) -> None:
        """A call is given its response. It counts as unread until the call's task ends."""
        if call in self._unread:
            return  # the status of a stream whose last message is still being sent
        unread = self._of_calls.get(call)
        if unread is None:
            unread = self._count(call, Unread(recipient, 0, None))
        self.hold(unread, size_bytes)
        self._unread[call] = unread
        unread.since = self._clock.begin_at

    def stream(self, call: Call, recipient: Hashable, is_late: Callable[[], None]) -> Unread:
        """Begin to count what a call with many messages holds: nothing yet.

        `is_late`: see Unread.
        """
        return self._count(call, Unread(recipient, 0, None, is_late, is_stream=True))

    def hold(self, unread: Unread, size_bytes: int) -> None:
        """Count this many bytes for a call, in place of those before."""
        more = size_bytes - unread.bytes
        if not more:
            return
        unread.bytes = size_bytes
        self._held += more
        if unread.is_stream:
            self.stream_bytes += more
        recipient = unread.recipient
        held_by_recipient = self._held_by.get(recipient, 0) + more
        if held_by_recipient:
            self._held_by[recipient] = held_by_recipient
        else:
            del self._held_by[recipient]
        if more < 0 and self.on_release is not None:
            self.on_release()

    def writes(self, call: Call, unread: Unread) -> None:
        """What the call holds is given to gRPC now."""
        self._unread[call] = unread
        unread.since = self._clock.begin_at

    def wrote(self, call: Call) -> None:
        """The call's message is sent."""
        unread = self._unread.pop(call, None)
        if unread is not None and unread.since is not None:
            if unread.since <= self._clock.looked_at:
                unread.read_at = self._clock.looked_at
            unread.since = None

    def _count(self, call: Call, unread: Unread) -> Unread:
        call.add_done_callback(self._is_over)
        self._of_calls[call] = unread
        return unread

    def _is_over(self, call: Call) -> None:
        self._unread.pop(call, None)
        unread = self._of_calls.pop(call, None)
        if unread is not None:
            unread.is_late = None  # it belongs to what refers to `unread`
            self.hold(unread, 0)

    async def cut_off(self) -> None:
        """Give up responses that stay unread for too long, until cancelled."""
        while True:
            late = self._given_before(await self._clock.next_look() - self._within)
            self.give_up([call for call in late if not self._told(call)], Limit.ANSWER_TIMEOUT)
            self.on_look()

    def slow_ones(self, too_much: float, among: Callable[[Unread], bool]) -> Sequence[Call]:
        """Return what callers are slow to read, the oldest first: a little more than `too_much`.

        Streams whose callers were seen to read within the time limit are spared, however slow they
        are. What they hold ends with its own time limit.
        """
        slow = []
        for call in self._given_before(self._clock.looked_at - _SLOW_SECONDS):
            if too_much < 0:
                break
            unread = self._unread[call]
            is_spared = unread.read_at >= self._clock.looked_at - self._within
            # The end of a stream may hold no bytes.
            if unread.bytes and among(unread) and not is_spared:
                slow.append(call)
                too_much -= unread.bytes
        return slow

    def give_up(self, calls: Collection[Call], limit: Limit) -> None:
        """Reset calls. It looks at all tasks of the process, once."""
        if calls:
            self._reset(calls)
        for call in calls:
            self._is_over(call)
            self._observer.limited(limit)

    def _told(self, call: Call) -> bool:
        """Tell a stream that it is late. Return whether it was told just now.

        Its status waits behind the message. If that stays unread as well, the stream is reset.
        """
        unread = self._unread[call]
        is_late, unread.is_late = unread.is_late, None
        if is_late is None:
            return False
        del self._unread[call]
        self.writes(call, unread)
        is_late()
        return True

    def _given_before(self, time: float) -> Sequence[Call]:
        early = takewhile(lambda item: (item[1].since or 0.0) < time, self._unread.items())
        return [call for call, _ in early]


def recipient_of(caller: Caller | None, context: Context) -> Hashable:
    """Return who gets the response to a call.

    Callers named `local` cannot be told apart: their connection is the recipient.
    """
    if caller is LOCAL or caller is None:
        return context.peer()
    return caller.task_id if isinstance(caller, Agent) else caller.subject
