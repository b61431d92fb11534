"""Compares what the task app shows with what this session has sent: the difference is appended.

Pure. The contents of sealed entries are dropped once they are sent; a whole list is compared with
their fingerprints.
"""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import replace

from tasklogs.log.append import Append, TailChange
from tasklogs.log.continuation import Position, StoredTail, Verdict, compare
from tasklogs.log.delta import Delta, beginning, diff
from tasklogs.log.entry import Entry, Time
from tasklogs.log.text import boundary_before
from tasklogs.publish.source import Effect, Mark

# So an append of 3 MiB has fewer than 50,000 empty entries, the most that a server accepts.
_ENTRY_OVERHEAD_BYTES = 64
_LATEST = Time(2**62, 0)
"""Later than any time of an entry."""
_MAX_HELD_BYTES = 64 * 1024 * 1024
"""The most content that is kept of what events showed and was not sent yet. The rest is read from a
list when it can be sent: the task app has it."""


class Differ:
    """One session's view of the log: what it has sent, what the task app shows, what to send next.

    `process` is a number that changes whenever the task app may have restarted.
    """

    def __init__(self, stored: Position, *, process: int | None, makes_deltas: bool = True) -> None:
        """`process`: the one that showed the stored tail; None if another agent sent that tail.

        `makes_deltas`: whether the server accepts a change of the tail as a delta.
        """
        self._makes_deltas = makes_deltas
        self._stored: Position | None = stored
        self._process = process
        self._sealed = array("q")
        self._last_sealed_id = -1
        self._base: Entry | StoredTail | None = None
        # An entry that was the base, and the CRC-32 of its content.
        self._checksum: tuple[Entry, int] | None = None
        # The shown entries from the first one on that is not sealed in the store. From a list each
        # entry that is sealed would move all that follow it.
        self._live: deque[Entry] = deque()
        # The size of the entries in `_live`, without the last.
        self._held_bytes = 0
        self._open_epoch = False
        self._withdraw_tail = False
        self._epoch = stored.epoch

    @property
    def sealed(self) -> int:
        """How many entries this session knows to be sealed in the store."""
        return len(self._sealed)

    @property
    def last_id(self) -> int:
        """The highest id that is shown; -1 if there is none."""
        return self._live[-1].id if self._live else self._last_sealed_id

    @property
    def is_compared(self) -> bool:
        """Whether a whole list was compared with `Welcome`."""
        return self._stored is None

    @property
    def tail_sent(self) -> tuple[Entry, int] | None:
        """The tail that the store has once all is committed, and the process that showed it."""
        if isinstance(self._base, Entry) and self._process is not None:
            return self._base, self._process
        return None

    @property
    def sent(self) -> Mark | None:
        """What the store has once all is committed; None if nothing can be named."""
        if self._open_epoch or not isinstance(self._base, Entry) or not self._live:
            return None
        if self._live[0] is self._base or self._live[0] == self._base:
            return Mark(len(self._sealed), self._base.time)
        # Only the beginning of this version is sent.
        return Mark(len(self._sealed) - 1, _LATEST) if self._sealed else None

    @property
    def has_changes(self) -> bool:
        """Whether something shown is not sent yet."""
        if self._open_epoch:
            # The first epoch of a task begins with its first entry. A later epoch begins at once,
            # because it ends the one before.
            return bool(self._live) or self._epoch > 0
        if self._withdraw_tail or len(self._live) > 1:
            return True
        return bool(self._live) and self._live[0] != self._base

    def show_list(
        self,
        entries: Sequence[Entry],
        *,
        process: int,
        skipped: int = 0,
        newer: Iterable[Entry] = (),
        lags: bool = False,
        verdict: Verdict | None = None,
    ) -> Effect:
        """Apply a whole list that the task app showed.

        skipped: how many known, sealed entries precede `entries`.
        newer: the entries that events showed since the list was requested. The list may be older.
        lags: the list may be older than what is known (the burst of `/events` is up to 25 ms, or a
        POST, behind `/messages`).

        verdict: what the source has found out about the list; None: it is compared here.

        Returns STALE for a list that lags and ends before what may still change: nothing is new.
        Returns UNCERTAIN for a list that lags and contradicts what the same process showed: it must
        not open an epoch, and nothing has changed. Returns UNCERTAIN, too, if the list does not
        explain an event: another list is needed.
        """
        restarted = process != self._process
        if lags and not restarted:
            if self._is_outrun(entries, skipped):
                return Effect.STALE
            newer = [*self._live, *newer]
        whole = list(entries)
        effects = [apply(whole, entry, sealed=skipped) for entry in newer]
        verdict = verdict or self._judge(whole, skipped, restarted=restarted)
        contradicts = verdict is Verdict.OPENS_EPOCH or Effect.UNCERTAIN in effects
        if lags and not restarted and contradicts:
            return Effect.UNCERTAIN
        self._adopt(whole, skipped, verdict)
        self._held_bytes = sum(map(_size, self._live))
        if self._live:
            self._held_bytes -= _size(self._live[-1])
        self._process = process
        return Effect.UNCERTAIN if Effect.UNCERTAIN in effects else Effect.CHANGED

    def show_entry(self, entry: Entry, *, process: int) -> Effect:
        """Apply one entry that an event showed."""
        if not self.is_compared or process != self._process:
            return Effect.UNCERTAIN
        if entry.id <= self._last_sealed_id:
            return Effect.STALE
        count = len(self._live)
        if count and entry.id > self._live[-1].id and self._held_bytes > _MAX_HELD_BYTES:
            return Effect.UNCERTAIN
        effect = apply(self._live, entry, sealed=len(self._sealed))
        if count and len(self._live) > count:
            self._held_bytes += _size(self._live[-2])
        return effect

    def next_append(self, limit_bytes: int, *, splits_entries: bool = False) -> Append | None:
        """Return what to send next, at most `limit_bytes` or one entry; None when all is sent.

        splits_entries: of a longer entry send only the beginning, as a tail that grows later, if
        the server accepts deltas.

        The session numbers it.
        """
        if not self.has_changes:
            return None
        open_epoch, withdraw_tail = self._open_epoch, self._withdraw_tail
        self._open_epoch = self._withdraw_tail = False
        self._epoch += open_epoch
        if withdraw_tail:
            self._base = None
        splits = splits_entries and self._makes_deltas
        tail = self._tail_change(limit_bytes if splits else None)
        used = tail.delta.cost_bytes if tail else 0
        entries: list[Entry] = []
        is_whole = tail is None or self._base is self._live[0]
        while is_whole and (entry := self._next_entry()) is not None:
            used += _size(entry)
            if used > limit_bytes and (entries or tail):
                break
            sent = _beginning(entry, limit_bytes) if splits else entry
            is_whole = sent is entry
            entries.append(sent)
            self._mark_sent(entry, sent)
        return Append(
            open_epoch=open_epoch, withdraw_tail=withdraw_tail, tail=tail, entries=tuple(entries)
        )

    def _tail_change(self, limit_bytes: int | None) -> TailChange | None:
        """Return the change of the tail as a delta; None if the whole entry is to be sent.

        The result of a delta that is longer than `limit_bytes` is only the entry's beginning.
        """
        base = self._base
        if not isinstance(base, Entry) or not self._live or self._live[0] == base:
            return None
        if not self._makes_deltas:
            return None
        entry = self._live[0]
        if entry.dropped_bytes != base.dropped_bytes:
            return None
        delta = diff(base.content, entry.content)
        if delta.text_bytes == len(entry.content) and base.content:
            return None  # it keeps nothing
        if limit_bytes is not None and delta.cost_bytes > limit_bytes:
            delta = beginning(delta, limit_bytes)
            entry = replace(entry, content=entry.content[: delta.result_bytes])
        crc32 = self._crc32_of(entry, base, delta)
        self._base, self._checksum = entry, (entry, crc32)
        return TailChange(entry.id, entry.time, delta, crc32)

    def _crc32_of(self, entry: Entry, base: Entry, delta: Delta) -> int:
        """Return the checksum of an entry's content, of which `delta` is the change."""
        if not delta.is_prefix or delta.kept_bytes < len(base.content):
            return zlib.crc32(entry.content)
        # The cost of a growing answer must not depend on its length: its checksum is continued.
        if self._checksum is None or self._checksum[0] is not base:
            self._checksum = base, zlib.crc32(base.content)
        return zlib.crc32(delta.pieces[0].text, self._checksum[1])

    def _next_entry(self) -> Entry | None:
        """Return the first entry whose current version the store does not have."""
        if not self._live:
            return None
        if self._base is None or self._live[0] != self._base:
            return self._live[0]
        return self._live[1] if len(self._live) > 1 else None

    def _mark_sent(self, entry: Entry, sent: Entry) -> None:
        """Record that `entry` is sent as `sent`, which seals the entry before it."""
        if self._base is not None and entry is not self._live[0]:
            sealed = self._live.popleft()
            self._held_bytes -= _size(sealed)
            self._sealed.append(fingerprint(sealed))
            self._last_sealed_id = sealed.id
        self._base = sent

    def _is_outrun(self, entries: Sequence[Entry], skipped: int) -> bool:
        """Whether a list ends before the entries that may still change, and was true earlier."""
        if not self.is_compared or (entries and entries[-1].id > self._last_sealed_id):
            return False
        count = len(entries) - 1 + skipped
        return count < len(self._sealed) and self._begins_with(entries[:-1], skipped)

    def _begins_with(self, entries: Sequence[Entry], skipped: int) -> bool:
        """Whether `entries` equal the sealed ones after `skipped`, as far as both go."""
        known = self._sealed[skipped:]
        return all(fingerprint(entry) == mark for entry, mark in zip(entries, known, strict=False))

    def _judge(self, whole: Sequence[Entry], skipped: int, *, restarted: bool) -> Verdict:
        if self._stored is not None:
            return compare(whole, self._stored, restarted=restarted)
        if self._open_epoch:
            return Verdict.CONTINUES  # nothing of the new epoch is sent: any list continues it
        count = len(self._sealed) - skipped
        if len(whole) < count or not self._begins_with(whole, skipped):
            return Verdict.OPENS_EPOCH
        if self._base is None:
            return Verdict.CONTINUES
        tail = StoredTail.of(self._base) if isinstance(self._base, Entry) else self._base
        rest = whole[count:]
        return compare(rest, Position(epoch=1, entries=1, tail=tail), restarted=restarted)

    def _adopt(self, whole: list[Entry], skipped: int, verdict: Verdict) -> None:
        if verdict is Verdict.OPENS_EPOCH:
            self._start_epoch(whole)
            return
        if self._stored is not None:
            self._resume_at(self._stored, whole, skipped)
        self._live = deque(whole[len(self._sealed) - skipped :])
        self._withdraw_tail = verdict is Verdict.WITHDRAWS_TAIL

    def _start_epoch(self, whole: list[Entry]) -> None:
        self._stored = None
        self._sealed = array("q")
        self._last_sealed_id = -1
        self._base = None
        self._live = deque(whole)
        self._withdraw_tail = False
        self._open_epoch = True

    def _resume_at(self, stored: Position, whole: list[Entry], skipped: int) -> None:
        """Continue the stored epoch, which the list has confirmed."""
        sealed = whole[: max(0, stored.sealed - skipped)]
        self._stored = None
        # A source that skips entries in its first list does not show them again.
        self._sealed = array("q", bytes(8 * skipped)) + array("q", map(fingerprint, sealed))
        self._last_sealed_id = sealed[-1].id if sealed else -1
        if skipped > stored.sealed:
            return  # the list begins after the stored tail, which is sealed with its first entry
        self._base = stored.tail
        if stored.tail is None or len(whole) == len(sealed):
            return
        entry = whole[len(sealed)]
        if entry.id == stored.tail.id and stored.tail.is_extended_by(entry):
            kept = entry.content[: stored.tail.content_bytes]
            self._base = replace(entry, time=stored.tail.time, content=kept)


def _size(entry: Entry) -> int:
    return entry.size_bytes + _ENTRY_OVERHEAD_BYTES


def _beginning(entry: Entry, limit_bytes: int) -> Entry:
    """Return as much of `entry` as `limit_bytes` hold, but some of its content at least."""
    if _size(entry) <= limit_bytes:
        return entry
    most_bytes = limit_bytes - _ENTRY_OVERHEAD_BYTES - entry.names.size_bytes
    end = boundary_before(entry.content, most_bytes)
    return replace(entry, content=entry.content[:end])


def fingerprint(entry: Entry) -> int:
    """Return 64 bits that change when a sealed entry changes. Valid in this process only."""
    return hash((entry.id, entry.type, entry.time, entry.dropped_bytes, entry.names, entry.content))


def apply(live: MutableSequence[Entry], entry: Entry, *, sealed: int) -> Effect:
    """Apply an entry that an event shows to the end of `live`, in place.

    `sealed` entries precede `live`.
    """
    if not live:
        if sealed or entry.id:
            return Effect.UNCERTAIN
        live.append(entry)
        return Effect.CHANGED
    tail = live[-1]
    if entry.id < tail.id:
        return Effect.STALE
    if entry.id == tail.id:
        return _change_tail(live, entry)
    # The task app removes a failed message, always an empty one, without an event. Its id is not
    # used again.
    if entry.id != tail.id + 1 or not tail.content:
        return Effect.UNCERTAIN
    live.append(entry)
    return Effect.CHANGED


def _change_tail(live: MutableSequence[Entry], entry: Entry) -> Effect:
    tail = live[-1]
    if (entry.type, entry.names) != (tail.type, tail.names):
        return Effect.UNCERTAIN
    is_same_moment = entry.time == tail.time
    if entry.time < tail.time or (is_same_moment and tail.content.startswith(entry.content)):
        return Effect.STALE
    live[-1] = entry
    return Effect.CHANGED
