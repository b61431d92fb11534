"""What a journal holds of one epoch: what waits, what was offered, and where that begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tasklogs.log import digest
from tasklogs.log.continuation import Position, Verdict, compare_rest, digest_with_tail
from tasklogs.log.entry import Entry
from tasklogs.publish.draft import Draft
from tasklogs.publish.source import Mark, Shown

ENTRY_BYTES = 256
"""What an entry takes in memory besides its content."""
_PROCESS = 1
"""A journal never starts over behind the session's back."""


@dataclass(slots=True)
class _Offered:
    entry: Entry
    draft: Draft
    version: int


class HeldEpoch:
    """The entries of one epoch from the last stored one on."""

    def __init__(self, *, continues: bool) -> None:
        """`continues`: it goes on with the epoch that is stored, if there is one."""
        self._continues = continues
        self._number: int | None = None
        """The epoch's number; None before the first `Welcome`."""
        self._opens = True
        """Whether the store does not have this epoch yet, as far as is known."""
        self._first = 0
        """How many entries precede the first that is held."""
        self._digest = digest.EMPTY
        """The running digest of these."""
        self._next_id = 0
        self._offered: deque[_Offered] = deque()
        self._waiting: deque[Draft] = deque()
        self._is_begun = False
        """Whether a session may have sent something."""
        self._placed_at: Position | None = None
        """The position that the writer has compared with its own entries."""
        self._is_shown = False
        """Whether the session that is open has a list."""
        self.last: Draft | None = None
        self.sealed_bytes = 0
        """The size of the entries that are held, without the last."""

    @property
    def is_settled(self) -> bool:
        """Whether the epoch's number is known."""
        return self._number is not None

    @property
    def last_bytes(self) -> int:
        """The size of the last entry."""
        return 0 if self.last is None or self.last.is_omitted else _size(self.last)

    @property
    def is_stored(self) -> bool:
        """Whether everything that was written is stored."""
        if self._waiting or len(self._offered) > 1:
            return False
        return all(one.draft.is_stored(one.draft.version) for one in self._offered)

    def add(self, draft: Draft) -> None:
        """Write an entry; it seals the one before."""
        if self.last is not None and not self.last.is_omitted:
            self.last.seal()
            self.sealed_bytes += _size(self.last)
        self.last = draft
        self._waiting.append(draft)

    def settle(self, stored: Position) -> None:
        """Choose the epoch's number and its place in the stored log."""
        self._opens = not (self._continues and stored.epoch and stored.tail is not None)
        if stored.tail is None or self._opens:
            self._number = stored.epoch + 1
            return
        self._number = stored.epoch
        self._first, self._digest = stored.entries, digest_with_tail(stored)
        self._next_id = stored.tail.id + 1

    def follow(self, before: HeldEpoch) -> None:
        """Come after another epoch, all of which was stored in this session."""
        if before._number is not None:
            self._number = before._number if before._opens else before._number + 1

    def continue_with_tail(self, stored: Position) -> None:
        """Let the first entry that is added be the stored tail, as the writer has it."""
        self._opens = False
        self._placed_at = stored
        self._number = stored.epoch
        self._first, self._digest = stored.sealed, stored.digest
        self._next_id = stored.tail.id if stored.tail is not None else stored.sealed

    def begin_session(self, stored: Position) -> bool:
        """Prepare for another session. Returns whether the stored log can be continued."""
        self._is_shown = False
        if not self._is_begun:
            if self._placed_at is not None:
                return stored == self._placed_at
            self._number = None
            return True
        if self._opens and stored.epoch + 1 == self._number:
            return True  # nothing was stored
        if stored.epoch != self._number:
            return False
        entries = [one.entry for one in self._offered]
        verdict = compare_rest(entries, stored, self._first, self._digest, restarted=False)
        self._opens = False
        return verdict is Verdict.CONTINUES

    def take(self, fitted: Callable[[Entry], Entry | None]) -> Shown | None:
        """Return the list to show; None if the session has it, or there is nothing to show.

        `fitted` is the session's.
        """
        has_changed = self._offer_waiting(fitted)
        if self._offered and self._offered[-1].version != self._offered[-1].draft.version:
            self._update(self._offered[-1])
            has_changed = True
        if not self._offered or (self._is_shown and not has_changed):
            return None
        opens_epoch = self._opens and not self._is_shown
        self._is_begun = self._is_shown = True
        return Shown(
            [one.entry for one in self._offered],
            _PROCESS,
            lags=False,
            skipped=self._first,
            verdict=Verdict.OPENS_EPOCH if opens_epoch else Verdict.CONTINUES,
        )

    def committed(self, mark: Mark) -> bool:
        """Drop what is stored, but for the last entry. Returns whether anything was news."""
        if not self._is_shown:
            return False
        self._opens = False
        is_news = False
        while len(self._offered) > 1 and self._first < mark.index:
            one = self._offered.popleft()
            one.draft.stored_version = one.version
            self.sealed_bytes -= _size(one.draft)
            self._digest = digest.seal(self._digest, one.entry)
            self._first += 1
            is_news = True
        if self._offered and self._first <= mark.index and self._offered[0].entry.time <= mark.time:
            one = self._offered[0]
            is_news = is_news or one.draft.stored_version != one.version
            one.draft.stored_version = one.version
        return is_news

    def _offer_waiting(self, fitted: Callable[[Entry], Entry | None]) -> bool:
        has_changed = False
        while self._waiting:
            if self._offered and self._offered[-1].version != self._offered[-1].draft.version:
                self._update(self._offered[-1])
            draft = self._waiting.popleft()
            version = draft.version
            entry = fitted(draft.entry(self._next_id))
            if entry is None:
                draft.is_omitted = True
                draft.follows = self._offered[-1].draft if self._offered else None
                self.sealed_bytes -= 0 if draft is self.last else _size(draft)
                continue
            draft.offered_version = version
            self._offered.append(_Offered(entry, draft, version))
            self._next_id += 1
            has_changed = True
        return has_changed

    def _update(self, one: _Offered) -> None:
        changed = one.draft.entry(one.entry.id)
        one.entry = Entry(
            one.entry.id,
            one.entry.type,
            changed.time,
            changed.content,
            changed.dropped_bytes,
            one.entry.names,
        )
        one.version = one.draft.offered_version = one.draft.version


def _size(draft: Draft) -> int:
    return draft.size_bytes + ENTRY_BYTES
