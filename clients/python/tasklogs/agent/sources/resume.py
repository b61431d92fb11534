"""Where in a transcript the stored log ends, so that an agent that restarts goes on there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from tasklogs.log import digest
from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.publish.draft import Draft

_CHECKS = 1_000_000
"""An entry that has no time in the transcript gets the agent's clock to the millisecond. The digits
below hold a check of all entries before it. After a restart it shows whether that is stored."""


class Chain:
    """A running hash of what a file says."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last: tuple[EntryType, Names] | None = None
        self._content = hashlib.sha256()
        """The last entry's, which may still change."""

    def is_last(self, kind: EntryType, names: Names) -> bool:
        """Whether the last entry has this type and these names. No other one can change."""
        return self._last == (kind, names)

    def add(
        self,
        kind: EntryType,
        content: bytes,
        names: Names,
        *,
        replaces: bool = False,
        extends: bool = False,
    ) -> None:
        """Add an entry, from which `--redact` has removed what matches, or change the last one."""
        if not replaces and not extends:
            self._hash.update(self._content.digest())
            self._hash.update(repr((kind.value, tuple(names))).encode())
            self._last = kind, names
        if not extends:
            self._content = hashlib.sha256()
        self._content.update(content)

    def begin_epoch(self) -> None:
        """Add that another conversation begins: the same entries then have other checks."""
        self._hash.update(self._content.digest() + b"epoch")
        self._last = None
        self._content = hashlib.sha256()

    @property
    def check(self) -> int:
        """A number below a million: of all entries before the last one, and of what that is."""
        return int.from_bytes(self._hash.digest()[:8], "big") % _CHECKS

    def time(self, now_ns: int, after: Time | None) -> Time:
        """Return a time for an entry without one: now, with the check, and later than `after`."""
        seconds, nanos = divmod(now_ns, 1_000_000_000)
        time = Time(seconds, nanos // _CHECKS * _CHECKS + self.check)
        if after is None or time > after:
            return time
        milliseconds = after.seconds * 1000 + after.nanos // _CHECKS + 1
        return Time(milliseconds // 1000, milliseconds % 1000 * _CHECKS + self.check)


class Resume:
    """Compares a transcript from its start with the stored log, without keeping any of it."""

    def __init__(self, stored: Position, fitted: Callable[[Entry], Entry | None]) -> None:
        """`fitted` returns an entry as the server stores it; None if it does not."""
        self.stored = stored
        self._fitted = fitted
        self.seen = 0
        """How many entries were compared."""
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Compare what follows as another conversation."""
        self._digest = digest.EMPTY
        self._index = -1
        self._tail: Draft | None = None
        self._is_kept = True
        """Whether the server stores entries of the last one's type."""
        self._first_time: Time | None = None
        self._is_exact = True

    @property
    def is_newer(self) -> bool:
        """Whether this conversation begins after the stored tail: none of it can be stored."""
        tail = self.stored.tail
        return tail is not None and self._first_time is not None and self._first_time > tail.time

    def matches(
        self,
        entry: Entry,
        check: int | None,
        *,
        replaces: bool = False,
        extends: bool = False,
        grows: bool = False,
    ) -> Draft | None:
        """Compare the next entry, as the transcript has it. Returns it if it is the stored tail.

        `check`: that of its Chain, if the transcript has no time for it. `replaces`, `extends`: it
        is another version of the entry before, or more text of it. `grows`: the stored tail may be
        its beginning. What is returned has the stored time.
        """
        self.seen += 1
        self._first_time = self._first_time or entry.time
        if not replaces and not extends:
            self._follow(Draft(entry.type, entry.content, entry.time, entry.names))
        elif self._is_kept and self._tail is not None:
            change = self._tail.extend if extends else self._tail.replace
            change(entry.content, entry.time)
        if not self._is_kept or self._tail is None:
            return None
        stored = self.stored.tail
        if stored is not None and check == stored.time.nanos % _CHECKS:
            self._tail.time = stored.time
        is_stored = self._has_digest(check) and self._is_stored(self._tail, grows=grows)
        self._is_exact = self._is_exact and check is None
        return self._tail if is_stored else None

    def _follow(self, draft: Draft) -> None:
        self._is_kept = self._fitted(draft.entry(0)) is not None
        if not self._is_kept:
            return
        if self._tail is not None and self._is_exact:
            before = self._fitted(self._tail.entry(self._index))
            assert before is not None
            self._digest = digest.seal(self._digest, before)
        self._index += 1
        self._tail = draft

    def _is_stored(self, tail: Draft, *, grows: bool) -> bool:
        stored = self.stored.tail
        if stored is None or self._index != self.stored.sealed or tail.time != stored.time:
            return False
        fitted = self._fitted(tail.entry(self._index))
        if fitted is None:
            return False
        if grows and stored.is_extended_by(fitted):
            fitted = replace(fitted, content=fitted.content[: stored.content_bytes])
        if StoredTail.of(fitted) != stored:
            return False
        tail.names = fitted.names
        return True

    def _has_digest(self, check: int | None) -> bool:
        # A check covers everything before it, and so does a digest. With times of the clock before
        # it the digest is not known: then the tail's own time, content and place must do.
        return check is not None or not self._is_exact or self._digest == self.stored.digest
