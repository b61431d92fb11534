"""An entry on its way into the log: while it is the last one, its content may still change."""

from __future__ import annotations

from tasklogs.log.entry import NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.log.truncation import truncate_more

_MAX_LOOSE_BYTES = 1024 * 1024
"""With more in pieces, the content is put together, so that a long one is truncated in time."""

_MAX_PIECES = 4096
"""A piece of a few bytes takes ten times as much memory."""


class Draft:
    """One entry. `time` is that of its last change; each change is later than the one before."""

    def __init__(
        self, kind: EntryType, content: bytes, time: Time, names: Names = NO_NAMES
    ) -> None:
        self.type = kind
        self.time = time
        self.names = names
        self.version = 0
        """Counts the changes."""
        self.offered_version = -1
        """The last version that a session has; -1: none."""
        self.stored_version = -1
        """The last version that is stored; -1: none."""
        self.is_omitted = False
        """Whether the server does not store entries of this type."""
        self.follows: Draft | None = None
        """If it is omitted: the last entry before it that is not."""
        self._pieces: list[bytes] = []
        self._loose_bytes = 0
        self._dropped_bytes, self._content = truncate_more(0, content)

    @property
    def size_bytes(self) -> int:
        """The size of the content that is held."""
        return len(self._content) + self._loose_bytes

    def extend(self, text: bytes, time: Time) -> None:
        """Add text to the content's end."""
        self._pieces.append(text)
        self._loose_bytes += len(text)
        self._changed(time)
        if self._loose_bytes > _MAX_LOOSE_BYTES or len(self._pieces) >= _MAX_PIECES:
            self._join()

    def replace(self, content: bytes, time: Time) -> None:
        """Set another content."""
        self._pieces, self._loose_bytes = [], 0
        self._dropped_bytes, self._content = truncate_more(0, content)
        self._changed(time)

    def is_offered(self, version: int) -> bool:
        """Whether a session has this version, or one after it."""
        return self.is_omitted or self.offered_version >= version

    def is_stored(self, version: int) -> bool:
        """Whether this version is stored, or one after it."""
        if not self.is_omitted:
            return self.stored_version >= version
        return self.follows is None or self.follows.is_stored(self.follows.version)

    def seal(self) -> None:
        """Put the content together: it does not change any more."""
        self._join()

    def entry(self, entry_id: int) -> Entry:
        """Return the entry as it is now."""
        self._join()
        return Entry(entry_id, self.type, self.time, self._content, self._dropped_bytes, self.names)

    def _changed(self, time: Time) -> None:
        self.version += 1
        self.time = max(time, next_time(self.time))

    def _join(self) -> None:
        if self._pieces:
            joined = b"".join([self._content, *self._pieces])
            self._pieces, self._loose_bytes = [], 0
            self._dropped_bytes, self._content = truncate_more(self._dropped_bytes, joined)


def next_time(time: Time) -> Time:
    """Return the next moment that a Time can hold."""
    if time.nanos == 999_999_999:
        return Time(time.seconds + 1, 0)
    return Time(time.seconds, time.nanos + 1)
