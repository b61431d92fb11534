"""Watches the task app: reads its events and lists, and passes them to the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import assert_never

import structlog

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.answer import Answer
from tasklogs.agent.sources.agentapi.client import Burst, Event, StatusChange, TaskApp, Update
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.agent.sources.agentapi.health import Health
from tasklogs.agent.sources.agentapi.listing import Prefix
from tasklogs.agent.sources.agentapi.refresh import Refresher
from tasklogs.enums import AppHealth
from tasklogs.log.entry import Entry, EntryType
from tasklogs.publish.source import Effect, Listener, Mark

_log = structlog.get_logger(__name__)

_MAX_NEWER_BYTES = 64 * 1024 * 1024
"""The most content of events that is kept while a list is fetched. AgentAPI's events show only the
last few messages."""
_ENTRY_BYTES = 256


class Watch:
    """Keeps an event stream open, and fetches the whole list on request and when a status changes.

    A process is ready once it has said `stable` or shown a user's message. Until then nothing is
    passed on: the process may show its banner, before its saved state is loaded.
    """

    def __init__(self, app: TaskApp, settings: Settings, clock: Callable[[], float]) -> None:
        self._app = app
        self._settings = settings
        self._clock = clock
        self._health = Health(settings.unhealthy_after_seconds, clock)
        self._ready_process: int | None = None
        self._last_failure = ""
        self._listener: Listener | None = None
        self._newer: dict[int, Entry] = {}
        self._newer_bytes = 0
        self._newer_process = 0
        self._refresher = Refresher(
            self._messages,
            app.burst,
            settings,
            begin=self._begin_fetch,
            accept=self._fetched,
            failed=self._failed,
        )
        # The ready process and the highest id when the current fetch began.
        self._shown_before: tuple[int | None, int] = (None, -1)
        # The prefix of `/messages` that the listener knows, and the process that showed it.
        self._known: tuple[Prefix, int] | None = None

    @property
    def kind(self) -> str:
        """Names the source for operators."""
        return "agentapi"

    @property
    def health(self) -> AppHealth:
        """The health to report now."""
        return self._health.value

    def attach(self, listener: Listener) -> None:
        """Pass on what the task app shows, beginning with a whole list."""
        self._listener = listener
        self._known = None
        self._refresher.want()

    def detach(self) -> None:
        """Stop passing on."""
        self._listener = None
        self._known = None

    def offer(self) -> None:
        """Do nothing: what the task app shows is passed on at once."""

    def committed(self, mark: Mark) -> None:
        """Do nothing: the task app keeps the whole conversation."""

    async def refresh(self) -> None:
        """Read the whole list after this call, and pass it on. Raises TaskAppError."""
        await self._refresher.fresh()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._refresher.run())
            tasks.create_task(self._probe())
            tasks.create_task(self._follow_events())

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._settings.probe_interval_seconds)
            # Nothing else may ask again for what the failed read was to show.
            if self._last_failure:
                self._want()

    async def _follow_events(self) -> None:
        while True:
            began = self._clock()
            try:
                await self._read_events()
            except TaskAppError as error:
                self._failed(error)
            # A stream that ran for a while and then ended was dropped: open the next at once.
            if self._clock() - began < self._settings.probe_interval_seconds:
                await asyncio.sleep(self._settings.probe_interval_seconds)

    async def _read_events(self) -> None:
        try:
            async with asyncio.timeout(self._settings.sync_timeout_seconds) as burst_due:
                async with self._app.events() as events:
                    async for event in events:
                        burst_due.reschedule(None)
                        self._handle(event)
        except TimeoutError:
            raise TaskAppError(Fault.TIMEOUT, "/events: no response") from None

    def _handle(self, event: Event) -> None:
        match event:
            case Burst(shown):
                self._begin_stream(shown)
            case Update(entry, process):
                self._update(entry, process)
            case StatusChange(status, process):
                if status == "stable":
                    self._ready(process)
                self._want()
            case _:
                assert_never(event)

    def _begin_stream(self, shown: Answer) -> None:
        # AgentAPI says `stable` a moment before it shows what it loaded. So the first burst that
        # says `stable` may still have the banner; the fetch after it does not.
        was_ready = self._note_answer(shown)
        if was_ready and self._listener is not None:
            self._listener.show_list(shown, ())
        if shown.status == "stable":
            self._ready(shown.process)
        self._want()

    def _update(self, entry: Entry, process: int) -> None:
        if self._refresher.is_fetching:
            if process != self._newer_process:
                self._forget_newer()
                self._newer_process = process
            self._note_newer(entry)
        if entry.type is EntryType.INPUT and process != self._ready_process:
            self._ready(process)
            self._want()
        elif process == self._ready_process and self._shows_gap(entry, process):
            self._refresher.want()

    def _note_newer(self, entry: Entry) -> None:
        """Keep what came during a fetch. Beyond the limit the fetch fails."""
        before = self._newer.get(entry.id)
        self._newer_bytes += _ENTRY_BYTES + len(entry.content)
        self._newer_bytes -= _ENTRY_BYTES + len(before.content) if before else 0
        if self._newer_bytes > _MAX_NEWER_BYTES:
            self._newer.clear()
        else:
            self._newer[entry.id] = entry

    def _forget_newer(self) -> None:
        self._newer.clear()
        self._newer_bytes = 0

    def _want(self) -> None:
        """Request the whole list, if there is a listener."""
        if self._listener is not None:
            self._refresher.want()

    def _shows_gap(self, entry: Entry, process: int) -> bool:
        """Pass an entry on. Return whether a whole list is needed to know what happened."""
        if self._listener is None:
            return False
        return self._listener.show_entry(entry, process) is Effect.UNCERTAIN

    async def _messages(self) -> Answer:
        if self._listener is None or self._known is None:
            return await self._app.messages()
        prefix, process = self._known
        # The content of an entry that is not sealed may be needed again.
        usable = prefix.count <= self._listener.sealed
        shown = await self._app.messages(prefix if usable else None)
        if shown.skipped and shown.process != process:
            return await self._app.messages()
        return shown

    def _begin_fetch(self) -> None:
        self._forget_newer()
        last_id = -1 if self._listener is None else self._listener.last_id
        self._shown_before = (self._ready_process, last_id)

    def _newer_than(self, shown: Answer) -> Iterable[Entry]:
        """Return the entries that events showed since the list was requested and that may be newer.

        An entry that was known then and is not in the list was withdrawn. An event that shows it is
        older than the list.
        """
        if shown.process != self._newer_process:
            return ()
        process, known_id = self._shown_before
        if shown.lags or process != shown.process:
            return self._newer.values()
        last_id = shown.entries[-1].id if shown.entries else -1
        return [e for e in self._newer.values() if e.id <= last_id or e.id > known_id]

    def _fetched(self, shown: Answer) -> bool:
        was_ready_process, _ = self._shown_before
        is_ready = self._note_answer(shown)
        # A list that was requested before the process was ready may still show the banner. The next
        # list was requested by the event that made it ready.
        if not is_ready or not (shown.process == was_ready_process or _has_input(shown)):
            raise TaskAppError(Fault.STARTING, "the task app is still starting")
        if self._listener is None:
            return True
        if self._newer_bytes > _MAX_NEWER_BYTES:
            raise TaskAppError(Fault.NONSENSE, "/events: too much content during one fetch")
        if shown.skipped > self._listener.sealed:
            self._known = None
            raise TaskAppError(Fault.TORN, "/messages: the conversation started over")
        effect = self._listener.show_list(shown, self._newer_than(shown))
        if not shown.lags:
            self._known = None if shown.prefix is None else (shown.prefix, shown.process)
        if effect is Effect.UNCERTAIN and not shown.lags:
            self._refresher.want()
        return effect is not Effect.UNCERTAIN or not shown.lags

    def _note_answer(self, shown: Answer) -> bool:
        """Return whether the process that showed this list is ready."""
        if _has_input(shown):
            self._ready_process = shown.process
        self._last_failure = ""
        is_ready = shown.process == self._ready_process
        self._health.answered(ready=is_ready)
        self._tell_health()
        return is_ready

    def _ready(self, process: int) -> None:
        if process != self._ready_process:
            self._ready_process = process
            _log.info("task_app.ready")
        self._health.answered(ready=True)
        self._tell_health()

    def _failed(self, error: TaskAppError) -> None:
        if error.fault is not Fault.STARTING:
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                _log.warning("task_app.failed", reason=str(error))
            self._health.failed(error.fault)
            self._tell_health()

    def _tell_health(self) -> None:
        if self._listener is not None:
            self._listener.health_changed()


def _has_input(shown: Answer) -> bool:
    return any(entry.type is EntryType.INPUT for entry in shown.entries)
