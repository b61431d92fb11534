"""A source whose entries lose what `--redact` matches, before a session sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tasklogs.agent.sources.redaction import Redactor
from tasklogs.enums import AppHealth
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import truncate_more
from tasklogs.publish.source import Effect, Listener, Mark, Shown, Source


class RedactedSource:
    """Passes on what another source shows, without what matches."""

    def __init__(self, source: Source, redactor: Redactor) -> None:
        self._source = source
        self._redactor = redactor

    @property
    def kind(self) -> str:
        """That of the source."""
        return self._source.kind

    @property
    def health(self) -> AppHealth:
        """That of the source."""
        return self._source.health

    def attach(self, listener: Listener) -> None:
        """Let the source show its entries to `listener`, redacted."""
        self._source.attach(_RedactingListener(listener, self._redactor))

    def detach(self) -> None:
        """Stop passing on."""
        self._source.detach()

    def offer(self) -> None:
        """Let the source pass on what waits."""
        self._source.offer()

    def committed(self, mark: Mark) -> None:
        """Tell the source what is stored."""
        self._source.committed(mark)

    async def refresh(self) -> None:
        """Let the source read now. Raises SourceError."""
        await self._source.refresh()


class _RedactingListener:
    def __init__(self, listener: Listener, redactor: Redactor) -> None:
        self._listener = listener
        self._redactor = redactor

    @property
    def stored(self) -> Position:
        return self._listener.stored

    @property
    def sealed(self) -> int:
        return self._listener.sealed

    @property
    def last_id(self) -> int:
        return self._listener.last_id

    def show_list(self, shown: Shown, newer: Iterable[Entry]) -> Effect:
        redacted = replace(shown, entries=[self._redacted(entry) for entry in shown.entries])
        return self._listener.show_list(redacted, [self._redacted(entry) for entry in newer])

    def show_entry(self, entry: Entry, process: int) -> Effect:
        return self._listener.show_entry(self._redacted(entry), process)

    def fitted(self, entry: Entry) -> Entry | None:
        return self._listener.fitted(self._redacted(entry))

    def wake(self) -> None:
        self._listener.wake()

    def health_changed(self) -> None:
        self._listener.health_changed()

    def _redacted(self, entry: Entry) -> Entry:
        content = self._redactor.utf8(entry.content)
        if content is entry.content:
            return entry
        # What takes the place of a match may be longer than it.
        dropped, kept = truncate_more(entry.dropped_bytes, content)
        return replace(entry, content=kept, dropped_bytes=dropped)
