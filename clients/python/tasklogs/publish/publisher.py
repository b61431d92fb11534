"""Writes a task's log from any program."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from tasklogs.client.new_entry import Entry, names_of, time_of, type_of
from tasklogs.connection.tls import Tls
from tasklogs.errors import TaskLogsRpcError, Unavailable
from tasklogs.log.entry import Time
from tasklogs.log.text import to_utf8
from tasklogs.publish.carrier import Carrier, ServerPlace
from tasklogs.publish.departure import Departure, LeftWithoutGoodbye
from tasklogs.publish.draft import Draft
from tasklogs.publish.errors import NotStored, PublisherClosed
from tasklogs.publish.journal import Journal
from tasklogs.publish.own_token import OwnToken
from tasklogs.publish.reconnect import Fatal
from tasklogs.publish.settings import StreamSettings
from tasklogs.publish.source import SourceError
from tasklogs.v1.task_agents_pb2 import Goodbye

AgentToken = str | Callable[[], str | None]
"""A task's agent token, or a function that returns it, also after it was rotated."""
OnSync = Callable[[], Awaitable[None] | None]

DEFAULT_MOST_BYTES = 8 * 1024 * 1024
DEFAULT_CONNECT_TIMEOUT = timedelta(seconds=30)
DEFAULT_CLOSE_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """The stored log when the publisher connected: its epoch, and how many entries that has.

    Epoch 0: nothing was ever stored. `last_source_id` is that of the last entry.
    """

    epoch: int
    entries: int
    last_source_id: str


class Publisher:
    """Writes a task's log, inside an `async with`.

    >>> import asyncio
    >>> from tasklogs import Entry, Publisher
    >>> async def main() -> None:
    ...     async with Publisher("127.0.0.1:50051", token=agent_token) as log:
    ...         await log.append(Entry.input("Why is the sky blue?"))
    ...         answer = await log.begin(Entry.output())
    ...         for text in ("Because ", "of ", "Rayleigh."):
    ...             await answer.extend(text)
    ...         await log.flush()
    >>> asyncio.run(main())

    `token` is the task's agent token (`create_task`). While the publisher is open the task is
    ACTIVE, if it is standalone: readers see each entry as it grows. Leaving the `async with` stores
    everything and ends the session; a standalone task is PAUSED then.

    By default the first entry opens a new epoch, because another run of a program is another
    conversation. `resume`: continue the stored epoch instead; `stored` says what it has.

    It reconnects by itself, and sends nothing twice. At most `max_held_bytes` (8 MiB) wait to be
    stored: beyond that `append` and `begin` wait. `extend` never waits, because changes of the last
    entry coalesce, and an entry has at most 1 MiB.

    A reader of the live log asks the publisher for what is new. It answers at once; with `on_sync`
    it calls that first, which may write more.

    Entering waits until the server has accepted the session, at most `connect_timeout` (None: no
    limit; 0: it does not wait). It raises Unavailable, or what the server answered. Later calls
    raise a TaskLogsRpcError if the publisher cannot go on (TaskNotFound, Unauthenticated,
    PermissionDenied, StaleReport), LogDiverged if the stored log cannot be continued, and
    PublisherClosed outside of the `async with`. What passes (the server is away, or the log is
    full) is not raised: `last_error` has it. To limit a wait use `asyncio.timeout`.

    Use a publisher only in the event loop that entered it; several tasks may write.
    """

    def __init__(
        self,
        address: str,
        *,
        token: AgentToken,
        tls: Tls | None = None,
        resume: bool = False,
        build_number: int | None = None,
        kind: str = "publisher",
        on_sync: OnSync | None = None,
        max_held_bytes: int = DEFAULT_MOST_BYTES,
        connect_timeout: timedelta | None = DEFAULT_CONNECT_TIMEOUT,
        close_timeout: timedelta = DEFAULT_CLOSE_TIMEOUT,
    ) -> None:
        """`kind` names the program for operators; `build_number` is that of its workspace build."""
        self._place = ServerPlace(address, tls)
        self._token = token
        self._resume = resume
        self._build_number = build_number
        self._kind = kind
        self._on_sync = on_sync
        self._max_held_bytes = max_held_bytes
        self._connect_timeout = connect_timeout
        self._close_timeout = close_timeout
        self._settings = StreamSettings()
        self._departure = Departure()
        self._journal: Journal | None = None
        self._carrier: Carrier
        self._carrying: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        if self._journal is not None or self._departure.is_wanted:
            raise PublisherClosed
        self._departure = Departure()  # the one before may belong to another event loop
        token = self._own_token()
        self._journal = Journal(self._kind, most_bytes=self._max_held_bytes, sync=self._sync)
        self._journal.begin_epoch(continues=self._resume)
        self._carrier = Carrier(
            self._place,
            token,
            self._journal,
            self._departure,
            self._settings,
            build_number=self._build_number,
        )
        self._carrying = asyncio.create_task(self._carry(self._journal))
        try:
            await self._connected(self._journal)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if exception is None:
            await self.aclose()
            return
        # The body's own error is what the caller must see.
        with contextlib.suppress(Exception):
            await self.aclose()

    async def aclose(self) -> None:
        """Store everything, end the session. Closing twice does nothing.

        Raises NotStored if that takes longer than `close_timeout`, or what `flush` raises.
        """
        journal = self._journal
        if journal is None:
            return
        try:
            async with asyncio.timeout(self._close_timeout.total_seconds()):
                await journal.stored()
                self._departure.want(Goodbye.REASON_PAUSING)
                await asyncio.wait({self._carrying})
        except TimeoutError:
            raise NotStored(f"not everything is stored: {self._why()}") from None
        finally:
            await self._stop()

    async def append(self, entry: Entry) -> None:
        """Write an entry. Waits while more than `max_held_bytes` wait to be stored."""
        await self._add(entry)

    async def begin(self, entry: Entry) -> OpenEntry:
        """Write an entry that may change until another one is written."""
        return OpenEntry(self, await self._add(entry))

    async def begin_epoch(self) -> None:
        """Let the next entry begin another conversation."""
        self._open().begin_epoch()

    async def flush(self) -> None:
        """Wait until everything that was written by now is stored durably."""
        await self._open().stored()

    @property
    def stored(self) -> StoredLog | None:
        """The stored log when the last session began; None before the first."""
        found = self._open().last_position
        if found is None:
            return None
        source_id = "" if found.tail is None else found.tail.names.source_id
        return StoredLog(epoch=found.epoch, entries=found.entries, last_source_id=source_id)

    @property
    def last_error(self) -> TaskLogsRpcError | None:
        """What ended the last session; None while one is open, or if nothing is known."""
        ended = None if self._open().is_attached else self._carrier.last_error
        return None if ended is None else ended.error

    async def _add(self, entry: Entry) -> Draft:
        journal = self._open()
        draft = Draft(
            type_of(entry), to_utf8(entry.content), time_of(entry, _now()), names_of(entry)
        )
        await journal.add(draft)
        return draft

    def _open(self) -> Journal:
        if self._journal is None:
            raise PublisherClosed
        return self._journal

    def _own_token(self) -> OwnToken:
        import random

        read = None if isinstance(self._token, str) else self._token
        token = self._token if isinstance(self._token, str) else self._token() or ""
        return OwnToken(token, read, settings=self._settings, rng=random.Random())

    async def _carry(self, journal: Journal) -> None:
        """Run the carrier until the journal cannot go on."""
        carrying = asyncio.create_task(self._carrier.run())
        broken = asyncio.create_task(journal.until(lambda: False))
        try:
            await asyncio.wait({carrying, broken}, return_when=asyncio.FIRST_COMPLETED)
            if carrying.done() and not carrying.cancelled():
                carrying.result()
        except LeftWithoutGoodbye:
            pass  # everything is stored
        except Fatal as fatal:
            journal.fail(fatal.error or fatal)
        except Exception as error:
            journal.fail(error)
            raise
        finally:
            carrying.cancel()
            broken.cancel()
            # `_stop` may cancel this wait: gather still waits for both and retrieves their errors.
            await asyncio.gather(carrying, broken, return_exceptions=True)

    async def _connected(self, journal: Journal) -> None:
        limit = self._connect_timeout
        if limit is not None and not limit:
            return
        try:
            async with asyncio.timeout(None if limit is None else limit.total_seconds()):
                await journal.position()
        except TimeoutError:
            raise self.last_error or Unavailable(
                code=grpc.StatusCode.UNAVAILABLE,
                message=f"{self._place.address}: {self._why()}",
            ) from None

    async def _sync(self) -> None:
        if self._on_sync is None or self._departure.is_wanted:
            return
        try:
            result = self._on_sync()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            # The text of the program's own error could hold content.
            raise SourceError(f"on_sync failed: {type(error).__name__}") from error

    def _why(self) -> str:
        ended = self._carrier.last_error
        return "the server did not answer in time" if ended is None else ended.reason

    async def _stop(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.fail(PublisherClosed())  # for those that still wait
        await _cancel(self._carrying)


class OpenEntry:
    """The last entry of a log, which may change until another one is written."""

    def __init__(self, publisher: Publisher, draft: Draft) -> None:
        self._publisher = publisher
        self._draft = draft

    async def extend(self, text: str) -> None:
        """Add text to its end. Raises EntrySealed if another entry was written meanwhile."""
        self._publisher._open().extend(self._draft, to_utf8(text), _now())
        await asyncio.sleep(0)  # a loop that only extends must let the session send

    async def replace(self, content: str) -> None:
        """Set another content. Raises EntrySealed if another entry was written meanwhile."""
        self._publisher._open().replace(self._draft, to_utf8(content), _now())
        await asyncio.sleep(0)


def _now() -> Time:
    return Time(*divmod(time.time_ns(), 1_000_000_000))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it
