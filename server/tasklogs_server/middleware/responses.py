"""Responses that callers have not read yet.

Each one holds its bytes. A caller that reads nothing never raises an error. So there is a limit to
the time of one response, to the bytes of all, and to the bytes of one caller: callers who read do
not wait for those who do not.
"""

from __future__ import annotations

from collections import defaultdict
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


@dataclass(slots=True)
class _Response:
    recipient: Hashable
    bytes: int
    since: float


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
        self._limit = limit_bytes
        self._within = within.total_seconds()
        self._clock = StallFreeClock(min(self._within, _SLOW_SECONDS))
        self._reset = reset
        self._observer = observer or Observer()
        self._unread: dict[Call, _Response] = {}
        self._held = 0
        self._held_by: dict[Hashable, int] = defaultdict(int)

    @property
    def held_bytes(self) -> int:
        """The bytes of all unread responses."""
        return self._held

    def admit(self, caller: Caller | None, context: Context) -> Hashable:
        """Return the recipient of the response that a call will get. Raises LimitExceeded.

        Callers named `local` cannot be told apart: their connection is the recipient.
        """
        if caller is LOCAL or caller is None:
            recipient: Hashable = context.peer()
        else:
            recipient = caller.task_id if isinstance(caller, Agent) else caller.subject
        if self._held:
            self.check(recipient)
        return recipient

    def check(self, recipient: Hashable) -> None:
        """Raise LimitExceeded if the recipient may not have one more unread response."""
        if self._held_by.get(recipient, 0) >= self._limit * _SHARE:
            what = f"more than {self._limit * _SHARE:.0f} bytes of unread responses"
            raise LimitExceeded(Limit.ANSWER_BYTES, "caller", what, _RETRY_AFTER)
        if self._held >= self._limit:
            self._give_up_slow_ones()
            if self._held >= self._limit:
                what = f"more than {self._limit} bytes of unread responses"
                raise LimitExceeded(Limit.ANSWER_BYTES, "server", what, _RETRY_AFTER)

    def began(self, call: Call, recipient: Hashable, size_bytes: int) -> None:
        """A call is given its response. It counts as unread until the call's task ends."""
        call.add_done_callback(self._is_over)
        self._unread[call] = _Response(recipient, size_bytes, self._clock.begin_at)
        self._held += size_bytes
        self._held_by[recipient] += size_bytes

    def _is_over(self, call: Call) -> None:
        response = self._unread.pop(call, None)
        if response is None:
            return
        self._held -= response.bytes
        self._held_by[response.recipient] -= response.bytes
        if not self._held_by[response.recipient]:
            del self._held_by[response.recipient]

    async def cut_off(self) -> None:
        """Give up responses that stay unread for too long, until cancelled."""
        while True:
            late = self._given_before(await self._clock.next_look() - self._within)
            self._give_up(late, Limit.ANSWER_TIMEOUT)

    def _give_up_slow_ones(self) -> None:
        too_much = self._held - self._limit
        slow = []
        for call in self._given_before(self._clock.looked_at - _SLOW_SECONDS):
            if too_much < 0:
                break
            size_bytes = self._unread[call].bytes
            if size_bytes:  # the end of a stream holds none
                slow.append(call)
                too_much -= size_bytes
        self._give_up(slow, Limit.ANSWER_BYTES)

    def _given_before(self, time: float) -> Sequence[Call]:
        early = takewhile(lambda item: item[1].since < time, self._unread.items())
        return [call for call, _ in early]

    def _give_up(self, calls: Sequence[Call], limit: Limit) -> None:
        if calls:
            self._reset(calls)
        for call in calls:
            self._is_over(call)
            self._observer.limited(limit)
