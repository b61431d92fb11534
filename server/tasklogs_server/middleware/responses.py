"""Answers that are given, and on their way for as long as their callers do not take them.

Each holds its bytes. A caller that takes nothing raises no error ever, so there is a bound to the
time of one answer, to the bytes of all, and to those of one caller: nobody waits for a place that
somebody holds who does not read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any, TypeAlias

from tasklogs_server.concurrency.stall_free_clock import Attention
from tasklogs_server.domain.caller import LOCAL, Agent, Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.handlers import Context
from tasklogs_server.middleware.resets import reset
from tasklogs_server.telemetry.observer import Observer

_Call: TypeAlias = "asyncio.Task[Any]"

# Who takes what he asked for within this is not slow: where bytes are short, others go first.
_SLOW_SECONDS = 2.0
# Of all bytes, how many may be one caller's.
_SHARE = 0.5
_LATER = timedelta(seconds=1)


@dataclass(slots=True)
class _Answer:
    whose: Hashable
    bytes: int
    since: float


class Sending:
    """The answers that are on their way, in the order in which they were given."""

    def __init__(
        self, limit_bytes: int, within: timedelta, *, observer: Observer | None = None
    ) -> None:
        self._limit = limit_bytes
        self._within = within.total_seconds()
        self._time = Attention(self._within)
        self._observer = observer or Observer()
        self._answers: dict[_Call, _Answer] = {}
        self._held = 0
        self._held_by: dict[Hashable, int] = defaultdict(int)

    @property
    def held_bytes(self) -> int:
        """Of all answers that are on their way."""
        return self._held

    def check(self, whose: Hashable) -> None:
        """Whether one more answer may be asked for. Raises LimitExceeded."""
        if self._held_by.get(whose, 0) >= self._limit * _SHARE:
            what = f"more than {self._limit * _SHARE:.0f} bytes of answers that are not taken"
            raise LimitExceeded(Limit.ANSWER_BYTES, "caller", what, _LATER)
        if self._held >= self._limit:
            self._give_up_slow_ones()
            if self._held >= self._limit:
                what = f"more than {self._limit} bytes of answers that are not taken"
                raise LimitExceeded(Limit.ANSWER_BYTES, "server", what, _LATER)

    def began(self, call: _Call, whose: Hashable, answer_bytes: int) -> None:
        """A call is given its answer, which is on its way until the task that gives it ends."""
        call.add_done_callback(self._is_over)
        self._answers[call] = _Answer(whose, answer_bytes, self._time.now())
        self._held += answer_bytes
        self._held_by[whose] += answer_bytes

    def _is_over(self, call: _Call) -> None:
        answer = self._answers.pop(call, None)
        if answer is None:
            return
        self._held -= answer.bytes
        self._held_by[answer.whose] -= answer.bytes
        if not self._held_by[answer.whose]:
            del self._held_by[answer.whose]

    async def cut_off(self) -> None:
        """Give up what nobody takes, until cancelled."""
        while True:
            late = self._given_before(await self._time.next_look() - self._within)
            self._give_up(late, Limit.ANSWER_TIMEOUT)

    def _give_up_slow_ones(self) -> None:
        too_much = self._held - self._limit
        slow = []
        for call in self._given_before(self._time.now() - _SLOW_SECONDS):
            if too_much < 0:
                break
            answer_bytes = self._answers[call].bytes
            if answer_bytes:  # the end of a stream holds none
                slow.append(call)
                too_much -= answer_bytes
        self._give_up(slow, Limit.ANSWER_BYTES)

    def _given_before(self, moment: float) -> Sequence[_Call]:
        early = takewhile(lambda item: item[1].since < moment, self._answers.items())
        return [call for call, _ in early]

    def _give_up(self, calls: Sequence[_Call], limit: Limit) -> None:
        if calls:
            reset(calls)
        for call in calls:
            self._is_over(call)
            self._observer.limited(limit)


def recipient_of(caller: Caller | None, context: Context) -> Hashable:
    """Return whom an answer is for: who is `local`, and cannot be told apart, by connection."""
    if isinstance(caller, Agent):
        return caller.task_id
    if caller is None or caller is LOCAL:
        return context.peer()
    return caller.subject


def size_of(answer: Any) -> int:
    """Return the bytes of an answer: of one that is encoded already, a message, or of none."""
    if answer is None:  # its messages were written one by one
        return 0
    return len(answer) if isinstance(answer, bytes) else int(answer.ByteSize())
