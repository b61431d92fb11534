"""Where in a transcript the stored log ends, so that an agent that restarts goes on there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from tasklogs.log import digest
from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.publish.draft import next_time

_CHECKS = 1_000_000
"""An entry that has no time in the transcript gets the agent's clock to the millisecond. The digits
below hold a check of all entries before it. After a restart it shows whether that is stored."""


class Chain:
    """A running hash of what a file says."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._content = b""
        """The digest of the last entry's content, which may still grow."""

    def add(self, kind: EntryType, content: bytes, names: Names, *, grows: bool = False) -> None:
        """Add an entry, from which `--redact` has removed what matches.

        `grows`: it is the entry before, with more content.
        """
        if not grows:
            self._hash.update(self._content)
            self._hash.update(repr((kind.value, tuple(names))).encode())
        self._content = digest.content_hash(content)

    def begin_epoch(self) -> None:
        """Add that another conversation begins: the same entries then have other checks."""
        self._hash.update(self._content + b"epoch")
        self._content = b""

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
        self._index = 0
        self._tail: Entry | None = None
        self._last: tuple[EntryType, Names] | None = None
        self._first_time: Time | None = None
        self._is_exact = True

    @property
    def is_newer(self) -> bool:
        """Whether this conversation begins after the stored tail: none of it can be stored."""
        tail = self.stored.tail
        return tail is not None and self._first_time is not None and self._first_time > tail.time

    def matches(
        self, entry: Entry, check: int | None, *, replaces: bool, grows: bool = False
    ) -> Entry | None:
        """Compare the next entry. Returns it with the stored time, if it is the stored tail.

        `check`: that of its Chain, if the transcript has no time for it. `replaces`: it is another
        version of the entry before. `grows`: the stored one may be its beginning.
        """
        self.seen += 1
        self._first_time = self._first_time or entry.time
        stored = self.stored.tail
        if stored is not None and check == stored.time.nanos % _CHECKS:
            entry = replace(entry, time=stored.time)
        before, index = self._tail, self._index
        # As `Transcript` writes it: another type or other names are another entry.
        replaces = replaces and self._last == (entry.type, entry.names)
        self._last = entry.type, entry.names
        if before is not None and not replaces:
            index += 1
        elif before is not None and not grows:
            entry = replace(entry, time=max(entry.time, next_time(before.time)))
        fitted = self._fitted(replace(entry, id=index))
        if fitted is None:
            return None
        if before is not None and not replaces:
            self._digest = digest.seal(self._digest, before)
        self._index = index
        self._tail = fitted
        is_same = stored is not None and _is_stored(fitted, stored, grows=grows)
        found = is_same and self._index == self.stored.sealed and self._has_digest(check)
        self._is_exact = self._is_exact and check is None
        return fitted if found else None

    def _has_digest(self, check: int | None) -> bool:
        # A check covers everything before it, and so does a digest. With times of the clock before
        # it the digest is not known: then the tail's own time, content and place must do.
        return check is not None or not self._is_exact or self._digest == self.stored.digest


def _is_stored(entry: Entry, stored: StoredTail, *, grows: bool) -> bool:
    if entry.time != stored.time:
        return False
    found = StoredTail.of(entry)
    if not grows or not stored.is_extended_by(entry):
        return found == stored
    return (
        replace(found, content_bytes=stored.content_bytes, content_sha256=stored.content_sha256)
        == stored
    )
