"""What all sources share that read a transcript: a file of lines that an agent writes.

A new one is a subclass that says what a line means. The rest is here: where to go on after a
restart, what happens to the file, what is too long, when to look.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.left_out import LeftOutCount
from tasklogs.agent.sources.line_file import Change, LineFile, Look
from tasklogs.agent.sources.options import SourceOptions, UnusableSource
from tasklogs.agent.sources.record import Found, LeftOut, NewEpoch, Record
from tasklogs.agent.sources.redaction import Redactor
from tasklogs.agent.sources.resume import Chain, Resume
from tasklogs.agent.sources.standard_input import OpenFile
from tasklogs.agent.sources.watching import waking
from tasklogs.enums import AppHealth
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry, Time
from tasklogs.log.names import fitted_names
from tasklogs.log.text import to_utf8
from tasklogs.publish.draft import Draft
from tasklogs.publish.event_log import EventLog
from tasklogs.publish.journal import Journal, LogDiverged
from tasklogs.publish.source import Source, SourceError, one_line

_log = EventLog()

STANDARD_INPUT = Path("-")
_MOST_HELD_BYTES = 4 * 1024 * 1024
"""How much of a transcript waits in memory to be stored. The rest waits in the file."""


_UNEXPECTED = (
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
)
"""What parsing raises for a line in which something has another type than it should."""


class Lines(Protocol):
    """Where lines come from. Blocking calls."""

    def look(self) -> Look:
        """Read on. Raises OSError."""
        ...

    def start_over(self) -> None:
        """Let the next look begin at the start."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class Transcript(ABC):
    """Reads one file forward, and writes what it says. A subclass says what a line means."""

    name: str
    """The source's name, as in `--source`."""

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        """Raises UnusableSource."""
        self._journal = Journal(self.name, most_bytes=_MOST_HELD_BYTES, sync=self._read_now)
        self._path = self.chosen(options.transcript)
        self._settings = settings
        self._redactor = Redactor(options.redact)
        self._left_out = LeftOutCount()
        self._wake = asyncio.Event()
        self._requests: list[asyncio.Future[None]] = []
        self._looking: asyncio.Task[Look] | None = None
        self._search: Resume | None = None
        self._chain = Chain()
        self._told: Change | str | None = None
        self._has_ended = False
        """Whether standard input has ended, and all of it is written."""
        self._lines = self.opened(self._path)
        self._journal.health = AppHealth.INITIALIZING

    @abstractmethod
    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what a line says, in order. It has no newline."""

    def begins(self) -> None:  # noqa: B027 (few sources remember anything)
        """Forget what `parse` remembers of lines before: another conversation begins."""

    def ended(self) -> Iterable[Found]:
        """Return what `parse` has kept back: standard input has ended."""
        return ()

    def starts(self, stored: Position) -> None:  # noqa: B027
        """Prepare for a log that stands where `stored` says: the lines are read from the start."""

    def left(self, *, is_newer: bool) -> None:  # noqa: B027
        """Another session begins, and the stored log did not end in the one before.

        `is_newer`: all of that one is newer than the stored log.
        """

    def resumes(self) -> None:  # noqa: B027
        """The stored log ends in the session that is read."""

    def changed_ns(self, directory: Path) -> int | None:
        """Return when a session last changed whose agent ran in `directory`, or below it.

        In nanoseconds since 1970; None: there is no such session. Blocks. Raises OSError,
        sqlite3.Error.
        """
        return None

    def chosen(self, transcript: Path | None) -> Path:
        """Return the file to read. Raises UnusableSource."""
        if transcript is None:
            raise UnusableSource(f"--source {self.name} needs --transcript PATH")
        return transcript

    def opened(self, path: Path) -> Lines:
        """Return what reads the lines of `path`."""
        return OpenFile(0) if path == STANDARD_INPUT else LineFile(path)

    @property
    def feed(self) -> Source:
        """What a session reads."""
        return self._journal

    @property
    def place(self) -> str:
        """The path that is read."""
        return str(self._path)

    async def run(self) -> None:
        """Read until cancelled, or until standard input ends. Raises LogDiverged for that."""
        if self._path == STANDARD_INPUT:
            self._journal.begin_epoch()
            self._journal.health = AppHealth.HEALTHY
            async with self._waking_by_descriptor():
                await self._follow()
            self._has_ended = True
            self._answer_requests()
            # What was read is nowhere else: the server may be away for a while.
            await self._journal.stored()
            return
        async with waking(self._path, self._wake, self._settings):
            while True:
                try:
                    await self._begin()
                    await self._follow()
                except LogDiverged as error:
                    _log.warning("transcript.reread", reason=str(error))
                    self._journal.start_over()

    async def aclose(self) -> None:
        """Close the file."""
        self._left_out.tell_total()
        if self._looking is not None:
            await asyncio.wait({self._looking})
            if not self._looking.cancelled():
                self._looking.exception()  # retrieved, so that asyncio does not report it
        self._lines.close()
        for request in self._requests:
            request.cancel()

    def _waking_by_descriptor(self) -> _Readable:
        return _Readable(0, self._wake, self._settings)

    async def _begin(self) -> None:
        """Begin at the file's start, and look for the place where the stored log ends."""
        stored = await self._journal.position()
        self.starts(stored)
        self._rewind()
        if stored.epoch:
            self._search = Resume(stored, self._journal.fitted)
        else:
            self._journal.begin_epoch()

    async def _follow(self) -> None:
        while True:
            requests, self._requests = self._requests, []
            try:
                has_ended = await self._read_to_the_end()
            except OSError as error:
                self._tell(f"{error.strerror or type(error).__name__}")
                _fail(requests, SourceError(f"{self.name}: the transcript cannot be read"))
            except BaseException:
                _fail(requests, SourceError(f"{self.name}: the transcript is read again"))
                raise
            else:
                for request in requests:
                    if not request.done():
                        request.set_result(None)
                if has_ended:
                    return
            self._left_out.tell()
            if not self._requests:
                await self._wake.wait()
            self._wake.clear()

    async def _read_to_the_end(self) -> bool:
        """Read what there is now. Returns whether nothing more can come."""
        while True:
            look = await self._look()
            for line in look.lines:
                await self._take(line)
            if look.too_long:
                self._leave_out("too_long", look.too_long)
            self._changed_to(look.change)
            if look.change is Change.ENDED:
                await self._take_all(self.ended())
                return True
            if look.is_end and not self._gives_up_the_search(look):
                return False
            await asyncio.sleep(0)

    async def _look(self) -> Look:
        # A thread goes on after a cancellation; `aclose` must not close what it uses.
        self._looking = asyncio.create_task(asyncio.to_thread(self._lines.look))
        return await asyncio.shield(self._looking)

    def _gives_up_the_search(self, look: Look) -> bool:
        """Whether the whole file has been compared in vain: it is another conversation."""
        if self._search is None or not self._search.seen or look.change is not Change.NONE:
            return False
        # Sessions may have come while no agent ran: these are read, too, and not only the newest.
        self.starts(self._search.stored)
        self._rewind()
        self._journal.begin_epoch()
        return True

    def _rewind(self) -> None:
        self._lines.start_over()
        self._search = None
        self._begins()

    def _begins(self) -> None:
        self._chain = Chain()
        self.begins()

    def _changed_to(self, change: Change) -> None:
        match change:
            case Change.NONE:
                self._told = None if self._told in (Change.MISSING, Change.REFUSED) else self._told
                if self._journal.health is not AppHealth.HEALTHY:
                    self._journal.health = AppHealth.HEALTHY
                return
            case Change.STARTED_OVER:
                self._begins()
                if self._search is not None:
                    self.left(is_newer=self._search.is_newer)
                    self._search.begin_epoch()
                else:
                    self._journal.begin_epoch()
                self._told = None
            case _:
                pass
        self._tell(change)

    def _tell(self, told: Change | str) -> None:
        """Log what happened to the file, once."""
        if told is self._told or told == self._told:
            return
        self._told = told
        if isinstance(told, Change):
            _log.info("transcript.changed", change=told.name.lower())
        else:
            _log.warning("transcript.failed", reason=one_line(told))

    async def _take(self, line: bytes) -> None:
        await self._take_all(self._parsed(line))

    async def _take_all(self, everything: Iterable[Found]) -> None:
        for found in everything:
            match found:
                case LeftOut(kind):
                    self._leave_out(kind)
                case NewEpoch():
                    self.begins()
                    self._chain.begin_epoch()
                    if self._search is not None:
                        self._search.begin_epoch()
                    else:
                        self._journal.begin_epoch()
                case Record():
                    await self._write(found)

    def _leave_out(self, kind: str, count: int = 1) -> None:
        # What is compared was counted by the agent that stored it, or is read again.
        if self._search is None:
            # A kind is the transcript's own text.
            self._left_out.add(self._redactor.text(kind), count)

    def _parsed(self, line: bytes) -> Iterator[Found]:
        """Parse a line. One that is not as the source expects must not end the agent."""
        try:
            yield from self.parse(line)
        except _UNEXPECTED:
            yield LeftOut("unreadable")

    async def _write(self, record: Record) -> None:
        content = to_utf8(self._redactor.text(record.content))
        names = fitted_names(*(self._redactor.text(name) for name in record.names))
        is_last = self._chain.is_last(record.type, names)
        replaces, extends = is_last and record.replaces, is_last and record.extends
        self._chain.add(record.type, content, names, replaces=replaces, extends=extends)
        if self._search is not None:
            entry = Entry(0, record.type, record.time or Time(0, 0), content, 0, names)
            found = self._search.matches(
                entry,
                self._chain.check if record.time is None else None,
                replaces=replaces,
                extends=extends,
                grows=record.grows,
            )
            if found is not None:
                await self._resume(self._search.stored, found)
            return
        last = self._journal.last
        when = record.time or self._chain.time(time.time_ns(), last.time if last else None)
        if last is not None and extends:
            self._journal.extend(last, content, when)
        elif last is not None and replaces:
            self._journal.replace(last, content, when)
        else:
            await self._journal.add(Draft(record.type, content, when, names))

    async def _resume(self, stored: Position, found: Draft) -> None:
        """Go on after an entry that is the stored tail, or has grown from it."""
        if await self._journal.position() != stored:
            raise LogDiverged  # another program wrote while the file was compared
        self._search = None
        self.resumes()
        self._journal.begin_epoch().continue_with_tail(stored)
        if stored.tail is not None and found.size_bytes > stored.tail.content_bytes:
            found.time = self._chain.time(time.time_ns(), found.time)
        await self._journal.add(found)

    def _answer_requests(self) -> None:
        for request in self._requests:
            if not request.done():
                request.set_result(None)

    async def _read_now(self) -> None:
        """Read to the end that the file has now. Raises SourceError."""
        if self._has_ended:
            return
        request: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests.append(request)
        self._wake.set()
        await request


class _Readable:
    """Sets an event while a file descriptor is readable; a regular file always is."""

    def __init__(self, descriptor: int, wake: asyncio.Event, settings: Settings) -> None:
        self._descriptor = descriptor
        self._wake = wake
        self._looking: asyncio.Task[None] | None = None
        self._settings = settings

    async def __aenter__(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def __aexit__(self, *_: object) -> None:
        assert self._looking is not None
        self._looking.cancel()
        await asyncio.wait({self._looking})

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, readable.set)
        except OSError:  # a regular file
            self._wake.set()
            return
        try:
            while True:
                await readable.wait()
                readable.clear()
                self._wake.set()
                loop.remove_reader(self._descriptor)
                await asyncio.sleep(0.005)  # while it is read, it stays readable
                loop.add_reader(self._descriptor, readable.set)
        finally:
            loop.remove_reader(self._descriptor)


def _fail(requests: list[asyncio.Future[None]], error: SourceError) -> None:
    for request in requests:
        if not request.done():
            request.set_exception(error)
