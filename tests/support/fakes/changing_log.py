"""A server of one log, which changes and whose streams break as a test says."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence

import grpc

from tests.client.scripted_server import Refusal
from tests.support.fakes.followed_log import FollowedLog, Stored, falsified
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    PAUSED,
    Request,
    Response,
    Step,
    caught_up,
    status,
)


class Change(enum.Enum):
    APPEND = enum.auto()
    GROW = enum.auto()
    REDRAW = enum.auto()
    CUT = enum.auto()
    WITHDRAW = enum.auto()
    OPEN_EPOCH = enum.auto()


class Break(enum.Enum):
    DRAINING = enum.auto()
    ABORTED = enum.auto()
    END = enum.auto()
    REPEAT = enum.auto()
    LIE = enum.auto()
    WRONG_CHECKSUM = enum.auto()
    UNKNOWN_FORM = enum.auto()


class ChangingLog:
    """Serves follows of a log that changes between the messages, and breaks them on request.

    The status is ACTIVE, and PAUSED once all changes and breaks are over.
    """

    def __init__(
        self,
        changes: Sequence[tuple[Change, str, int]],
        breaks: Sequence[tuple[int, Break]],
    ) -> None:
        self.log = FollowedLog()
        self.log.open_epoch()
        self._changes = list(changes)
        self._breaks = list(breaks)

    async def play(self, request: Request) -> AsyncIterator[Step]:
        position = int(request.cursor or 0)
        after, kind = self._breaks.pop(0) if self._breaks else (None, None)
        sent: dict[int, Stored] | None = {} if request.deltas else None
        if kind is Break.REPEAT:
            position = 0
        yield status(str(position), ACTIVE)
        for message in self.log.since(position, sent):
            if (step := self._broken(after, kind)) is not None:
                yield step
                return
            after = None if after is None else after - 1
            yield message if kind is None else _sent(message, kind)
            position = int(message.cursor)
        yield caught_up(str(position))
        while self._changes:
            for _ in range(min(len(self._changes), 1 + len(self._changes) % 3)):
                self._apply(*self._changes.pop(0))
            for message in self.log.since(position, sent):
                if (step := self._broken(after, kind)) is not None:
                    yield step
                    return
                after = None if after is None else after - 1
                yield message if kind is None else _sent(message, kind)
                position = int(message.cursor)
        if kind is not None and self._breaks:
            yield _BROKEN[kind]
            return
        yield status(str(position), PAUSED)
        yield HOLD

    def _broken(self, after: int | None, kind: Break | None) -> Step | None:
        return _BROKEN[kind] if after == 0 and kind is not None else None

    def _apply(self, change: Change, text: str, keep: int) -> None:
        match change:
            case Change.APPEND:
                self.log.append(text)
            case Change.GROW:
                self.log.change_tail(1_000, text)
            case Change.REDRAW:
                self.log.change_tail(keep, text)
            case Change.CUT:
                self.log.cut_tail(keep, text)
            case Change.WITHDRAW:
                self.log.withdraw()
            case Change.OPEN_EPOCH:
                self.log.open_epoch()


def _sent(message: Response, kind: Break) -> Response:
    match kind:
        case Break.LIE:
            return falsified(message)
        case Break.WRONG_CHECKSUM if message.HasField("delta"):
            message.delta.content.crc32 ^= 1
        case Break.UNKNOWN_FORM if message.HasField("delta"):
            message.delta.ClearField("content")
        case _:
            pass
    return message


_DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "draining")
_BROKEN: dict[Break, Step] = {
    Break.DRAINING: _DRAINING,
    Break.ABORTED: Refusal(grpc.StatusCode.ABORTED, "again"),
    Break.END: _DRAINING,
    Break.REPEAT: Refusal(grpc.StatusCode.INTERNAL, "internal error"),
    Break.LIE: _DRAINING,
    Break.WRONG_CHECKSUM: _DRAINING,
    Break.UNKNOWN_FORM: _DRAINING,
}
