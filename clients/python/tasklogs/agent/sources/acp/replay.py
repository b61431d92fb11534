"""What an agent repeats when a session is loaded, compared with what the log has of that session.

The repetition is not marked. It has whole messages, may have some in another form, or lack some.
Gemini CLI sends most of it after the response, between what is said now.
"""

from __future__ import annotations

import enum
import hashlib
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from tasklogs.agent.sources.acp.content import text_of_block
from tasklogs.log.entry import EntryType

_SPOKEN = (EntryType.INPUT, EntryType.OUTPUT)


class Spoken:
    """The messages of the user's and of the agent's, in order, as digests."""

    def __init__(self) -> None:
        self.count = 0
        self._places: dict[bytes, list[int]] = {}
        self.forget()

    def forget(self) -> None:
        """Forget the message that grows."""
        self._kind: EntryType | None = None
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, kind: EntryType, text: str) -> None:
        """Add text of the message that grows."""
        if kind in _SPOKEN:
            self._kind = kind
            self._hash.update(text.encode(errors="replace"))

    def end(self) -> bytes | None:
        """End the message that grows, and return its digest; None if none grows."""
        if self._kind is None:
            return None
        digest = self._kind.name.encode() + self._hash.digest()
        self._places.setdefault(digest, []).append(self.count)
        self.count += 1
        self.forget()
        return digest

    def place(self, digest: bytes, first: int, end: int) -> int | None:
        """Return the first place of a message from `first` on and before `end`."""
        places = self._places.get(digest, [])
        at = bisect_left(places, first)
        return places[at] if at < len(places) and places[at] < end else None


class Verdict(enum.Enum):
    """What an update after the request to load a session is."""

    REPEATED = enum.auto()
    NEW = enum.auto()
    UNDECIDED = enum.auto()
    """The next one tells: it is as the next one is."""


class Replay:
    """Tells which updates are of the repetition."""

    def __init__(self, known: Spoken) -> None:
        self._known = known
        self._end = known.count
        self._next = 0
        """The place after the last message of the log that was found."""
        self._is_exact = True
        """Whether it had nothing else so far, and lacked nothing."""
        self._seen = Spoken()
        self._message: tuple[EntryType, object] | None = None
        self._last_kind: EntryType | None = None
        self._has_response = False
        self._is_over = False

    def judge(
        self, kind: EntryType | None, update: Mapping[str, Any], *, is_known: bool
    ) -> Verdict:
        """Tell whether an update is of it.

        `kind`: that of a chunk; None for a call of a tool. `is_known`: the log has this call.
        """
        if self._is_over:
            return Verdict.NEW
        text = text_of_block(update.get("content")) if kind is not None else ""
        if self._has_response:
            return self._judge_late(kind, text, is_known=is_known)
        message = None if kind is None else (kind, update.get("messageId"))
        if message != self._message:
            self._end_message()
            self._message = message
        # Somebody went on with the session elsewhere. With a message in another form this cannot
        # be told.
        is_whole = self._is_exact and self._next == self._end
        if kind is EntryType.INPUT and text and is_whole:
            self._is_over = True
            return Verdict.NEW
        self._last_kind = kind
        if kind is not None:
            self._seen.add(kind, text)
        return Verdict.REPEATED

    def responded(self) -> None:
        """The load has its response: from now on messages may be new."""
        self._end_message()
        self._has_response = True
        self._is_over = self._next == self._end

    def _end_message(self) -> None:
        digest = self._seen.end()
        if digest is not None:
            self._find(digest)

    def _find(self, digest: bytes) -> bool:
        place = self._known.place(digest, self._next, self._end)
        self._is_exact = self._is_exact and place == self._next
        if place is not None:
            self._next = place + 1
        return place is not None

    def _judge_late(self, kind: EntryType | None, text: str, *, is_known: bool) -> Verdict:
        """Judge an update after the response, where each repeated message is one chunk.

        Only messages of the user's show that the repetition goes on: live, an agent sends none.
        """
        if kind is EntryType.INPUT:
            self._last_kind = kind
        elif self._last_kind is not EntryType.INPUT:
            self._is_over = kind is None or bool(text)
            return Verdict.NEW
        if kind is None:
            self._is_over = not is_known
            return Verdict.REPEATED if is_known else Verdict.NEW
        self._seen.add(kind, text)
        digest = self._seen.end()
        is_found = digest is not None and self._find(digest)
        self._is_over = self._next == self._end
        return Verdict.REPEATED if is_found or kind is EntryType.INPUT else Verdict.UNDECIDED
