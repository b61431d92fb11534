"""The bus of several processes: notes between them, and how a loss of notes is noticed.

Each process numbers its payloads: those to all processes, and those to each one. It sends a beat
every second, and every 5 s while it is alone, which tells the numbers to each one. So a receiver
finds a missing payload by the next one, or soon after the next beat: payloads to all and to one may
overtake each other. A process that is silent for 3 s counts as gone.

What was missed is not sent again. Both sides are told of a gap, and look at the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

import structlog

from tasklogs_server.bus import payloads
from tasklogs_server.bus.interests import Interests
from tasklogs_server.bus.interface import PeerEvent, PeerListener
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import DirectNote, HeardNote, Moved, Note
from tasklogs_server.bus.outbox import Outbox
from tasklogs_server.bus.payloads import (
    About,
    Beat,
    Follows,
    FollowsAll,
    Joined,
    Left,
    LookAtAll,
    MalformedPayload,
    Missed,
    Payload,
    Welcomed,
    WireNote,
)
from tasklogs_server.bus.peers import Peer, Peers
from tasklogs_server.bus.transport import BusUnavailable, Receiver, Transport
from tasklogs_server.concurrency.background import background
from tasklogs_server.concurrency.stall_free_clock import StallFreeClock

# Changes gather for so long, so that a busy process sends 50 times a second.
GATHER_SECONDS = 0.02
SILENCE_SECONDS = 3.0
BEAT_SECONDS = 1.0
# Without another process nobody needs the beat. It finds a process whose first payload was lost.
LONELY_BEAT_SECONDS = 5.0
# After a gap, a busy bus that loses much would otherwise make all processes read all the time.
GAP_PAUSE_SECONDS = 1.0
# Of a task that changed lately, a process is told that begins to follow it: its read may have been
# before the change.
RECENT_SECONDS = 3.0

# Each process costs a few KB. There are never so many: more are senders that are no servers.
MAX_PROCESSES = 1_000
# A server's payload is a little longer only if a single note is.
_LONGEST_PAYLOADS = 4

# A transport that hangs must not delay the end of this process.
_LEAVE_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class SharedBus:
    """Passes notes on within this process at once, and to other processes soon.

    `run` must run as long as it is used. Until then there is no other process.
    """

    def __init__(self, process_id: UUID, transport: Transport, about: About | None = None) -> None:
        """`about` tells other processes which server this is."""
        self.process_id = process_id
        self._about = about
        self._servers: dict[UUID, About] = {}
        """The servers of other processes, by process."""
        self.is_connected = False
        """Whether notes of other processes arrive."""
        self._transport = transport
        self._local = LocalBus()
        self._outbox = Outbox(process_id, max_payload_bytes=transport.max_payload_bytes)
        self._own_head = process_id.hex
        self._hearers: list[Callable[[UUID, HeardNote], None]] = []
        self._watchers: list[PeerListener] = []
        self._clock = StallFreeClock(SILENCE_SECONDS)
        self._peers = Peers(SILENCE_SECONDS)
        self._interests = Interests()
        self._followed: set[UUID] = set()
        self._recent: dict[UUID, int | None] = {}
        self._before: dict[UUID, int | None] = {}
        """Tasks that changed before `_recent` was begun."""
        self._gaps: dict[UUID | None, float] = {}
        """When the watchers were last told of a gap, and may be told again."""
        self._due_gaps: set[UUID | None] = set()
        self._due = asyncio.Event()
        self._urgent = asyncio.Event()
        self._joined = asyncio.Event()
        self._is_leaving = False
        self._has_published = False
        self._alone_from = 0.0
        """Until then, processes may be there that have not answered yet."""
        self._left = asyncio.Event()
        """Set when the last payload was sent."""
        self._refused = False
        self.gaps = 0
        """How often the watchers were told of a gap."""

    @property
    def processes(self) -> int:
        """How many other processes are heard."""
        return len(self._peers)

    def listen(self, listener: Callable[[Note], None]) -> None:
        """Call `listener` with every note of this process from now on."""
        self._local.listen(listener)

    def hear(self, listener: Callable[[UUID, HeardNote], None]) -> None:
        """Call `listener` with the sender and every note of another process that arrives."""
        self._hearers.append(listener)

    def watch(self, listener: PeerListener) -> None:
        """Call `listener` with what happens to other processes."""
        self._watchers.append(listener)

    def publish(self, note: Note) -> None:
        """Tell the listeners of this process now, and the processes that it concerns soon."""
        self._local.publish(note)
        self._has_published = True
        if isinstance(note, Moved):
            commit = note.commit
            self._moved(note.task_id, note.revision if commit is None else commit.head.revision)
        elif self._may_be_heard:
            self._outbox.add(note)
            self._due.set()

    def send(self, process_id: UUID, note: DirectNote) -> None:
        """Tell one other process at once. Nothing happens if it is not reached."""
        if process_id in self._peers:
            self._outbox.add(note, process_id)
            self._due.set()
            self._urgent.set()

    def reaches(self, process_id: UUID) -> bool:
        """Whether this is another process that was heard lately."""
        return process_id in self._peers

    def follow(self, task_id: UUID) -> None:
        """Ask for the Moved notes of a task, until `unfollow`."""
        self._followed.add(task_id)
        self._follow_changed(task_id, follows=True)

    def unfollow(self, task_id: UUID) -> None:
        """Ask for no more notes of a task."""
        self._followed.discard(task_id)
        self._follow_changed(task_id, follows=False)

    async def joined(self) -> None:
        """Wait until notes of other processes arrive."""
        await self._joined.wait()

    async def run(self) -> None:
        """Send and receive until cancelled. At the end, the other processes are told."""
        receiver = Receiver(self._take, self._connection_changed)
        async with (
            background(self._transport.run(self.process_id, receiver)),
            background(self._send_all()),
        ):
            try:
                await self._beat()
            finally:
                self._outbox.add(Left())
                self._is_leaving = True
                self._due.set()
                self._urgent.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await self._left.wait()

    # Sending

    def _moved(self, task_id: UUID, revision: int | None) -> None:
        self._recent[task_id] = revision
        for process_id in self._interests.of(task_id):
            self._outbox.moved(task_id, revision, process_id)
            self._due.set()

    @property
    def _may_be_heard(self) -> bool:
        return bool(self._peers) or self._clock.begin_at < self._alone_from

    def _follow_changed(self, task_id: UUID, *, follows: bool) -> None:
        if self._may_be_heard:
            self._outbox.follow_changed(task_id, follows=follows)
            self._due.set()

    async def _send_all(self) -> None:
        """Send what waits: at once, then not before a pause, and urgent notes without it."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while not self._left.is_set():
            await self._due.wait()
            if not self._urgent.is_set() and loop.time() < next_at:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_at):
                        await self._urgent.wait()
            self._due.clear()
            self._urgent.clear()
            is_last, messages = self._is_leaving, self._outbox.take()
            if messages:
                with suppress(BusUnavailable):  # receivers notice by the numbers
                    await self._transport.send(messages)
            if is_last:
                self._left.set()
            next_at = loop.time() + GATHER_SECONDS

    async def _beat(self) -> None:
        beaten_at, recent_at = -LONELY_BEAT_SECONDS, 0.0
        while True:
            now = await self._clock.next_look()
            for process_id in self._peers.silent(now):
                _log.info("bus.process_lost", process=str(process_id))
                self._lose(process_id)
                self._gap(process_id)
            for due in list(self._due_gaps):
                self._gap(due)
            for peer in self._peers.with_missing(now):
                self._missed(peer)
            # Not a time that was set before: another process may have come since the last beat.
            if now - beaten_at >= (BEAT_SECONDS if self._peers else LONELY_BEAT_SECONDS):
                beaten_at = now
                self._outbox.beats = True
                self._due.set()
            if now >= recent_at:
                recent_at = now + RECENT_SECONDS
                self._before, self._recent = self._recent, {}

    # Receiving

    def _connection_changed(self, is_connected: bool) -> None:
        self.is_connected = is_connected
        for process_id in list(self._peers.ids()):
            self._lose(process_id)
        if is_connected:
            self._joined.set()
            self._alone_from = self._clock.begin_at + SILENCE_SECONDS
            self._outbox.add(Joined(not self._has_published, self._about))
            self._say_follows(None)
        self._gap(None)

    def _take(self, text: str) -> None:
        if text.startswith(self._own_head):
            return
        try:
            payload = self._decoded(text)
        except MalformedPayload:
            if not self._refused:
                self._refused = True
                _log.warning("bus.payload_refused", size_bytes=len(text))
            return
        peer = self._peers.get(payload.sender)
        if peer is None:
            peer = self._meet(payload)
        elif _joined(payload) is not None:
            # It did not hear this process for a while, and what it sent meanwhile may be lost.
            peer.to_all = peer.to_this = None
            self._welcome(payload.sender)
            self._gap(payload.sender)
        peer.heard_at = self._clock.begin_at
        is_missing = peer.arrived(payload.number, is_direct=payload.is_direct)
        if is_missing is None:
            return
        if is_missing:
            self._missed(peer)
        for note in payload.notes:
            self._took(peer, note)
            if isinstance(note, Left):
                return

    def _decoded(self, text: str) -> Payload:
        """Return a payload. Raises MalformedPayload if no server of this service can send it."""
        if len(text) > _LONGEST_PAYLOADS * self._transport.max_payload_bytes:
            raise MalformedPayload
        payload = payloads.decode(text)
        if len(self._peers) >= MAX_PROCESSES and payload.sender not in self._peers:
            raise MalformedPayload
        return payload

    def _took(self, peer: Peer, note: WireNote) -> None:
        sender = peer.process_id
        match note:
            case Beat(direct):
                number = direct.get(self._own_head)
                if number is not None:
                    peer.told(number, self._clock.begin_at)
            case Follows(more, no_longer):
                self._interests.changed(sender, more, no_longer)
                self._tell_recent(sender, more)
            case FollowsAll(tasks, is_last):
                self._interests.said(sender, tasks, is_last=is_last)
                self._tell_recent(sender, tasks)
            case Missed():
                self._say_follows(sender)
                self._tell(sender, PeerEvent.MISSED)
            case LookAtAll():
                self._tell(sender, PeerEvent.MOVED)
            case Left():
                self._lose(sender)
                self._tell(sender, PeerEvent.LEFT)
            case Joined(about=about) | Welcomed(about=about):
                self._note_server(sender, about)  # for the rest see `_meet`
            case _:
                for hearer in self._hearers:
                    hearer(sender, note)

    def _meet(self, payload: Payload) -> Peer:
        """Add a process that was not heard lately."""
        sender = payload.sender
        peer = self._peers.add(sender, self._clock.begin_at)
        joined = _joined(payload)
        if joined is not None:
            self._welcome(sender)
            if joined.is_fresh:
                self._tell(sender, PeerEvent.JOINED)
            else:
                self._gap(sender)
        elif any(isinstance(note, Welcomed) for note in payload.notes):
            self._interests.unknown(sender)
            # It has heard the list that went to all. To send that to each one would take a hundred
            # times as much where there are a hundred processes.
            if self._clock.begin_at >= self._alone_from:
                self._say_follows(sender)  # what was followed lately was told to nobody
            self._tell(sender, PeerEvent.JOINED)
        else:
            self._interests.unknown(sender)
            self._outbox.add(Joined(about=self._about), sender)
            self._say_follows(sender)
            self._gap(sender)
        return peer

    def _welcome(self, process_id: UUID) -> None:
        self._interests.unknown(process_id)
        self._outbox.add(Welcomed(self._about), process_id)
        self._say_follows(process_id)

    def _say_follows(self, process_id: UUID | None) -> None:
        self._outbox.say_follows(list(self._followed), process_id)
        self._outbox.beats = True
        self._due.set()

    def _missed(self, peer: Peer) -> None:
        self._interests.unknown(peer.process_id)
        self._outbox.add(Missed(), peer.process_id)
        self._due.set()
        self._gap(peer.process_id)

    def _note_server(self, process_id: UUID, about: About | None) -> None:
        """Log a server whose first process was met."""
        if about is None or process_id not in self._peers:
            return
        is_known = about == self._about or about in self._servers.values()
        self._servers[process_id] = about
        if not is_known:
            _log.info("bus.server_found", host=about.host, pid=about.pid, version=about.version)

    def _lose(self, process_id: UUID) -> None:
        self._servers.pop(process_id, None)
        self._peers.remove(process_id)
        self._interests.forget(process_id)
        self._outbox.forget(process_id)

    def _tell_recent(self, process_id: UUID, tasks: Iterable[UUID]) -> None:
        for task_id in tasks:
            for recent in (self._recent, self._before):
                if task_id in recent:
                    self._outbox.moved(task_id, recent[task_id], process_id)
                    self._due.set()
                    break

    def _gap(self, process_id: UUID | None) -> None:
        """Tell the watchers of a gap, at most once in a while for each process."""
        now = self._clock.begin_at
        if now < self._gaps.get(process_id, now):
            self._due_gaps.add(process_id)
            return
        self._due_gaps.discard(process_id)
        self._gaps = {one: at for one, at in self._gaps.items() if at > now}
        self._gaps[process_id] = now + GAP_PAUSE_SECONDS
        self.gaps += 1
        self._tell(process_id, PeerEvent.GAP)

    def _tell(self, process_id: UUID | None, event: PeerEvent) -> None:
        for watcher in self._watchers:
            watcher(process_id, event)


def _joined(payload: Payload) -> Joined | None:
    return next((note for note in payload.notes if isinstance(note, Joined)), None)
