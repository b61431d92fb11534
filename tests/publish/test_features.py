"""An agent and a server of other versions: the agent sends only what Welcome names."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from tasklogs.enums import AppHealth
from tasklogs.features import AGENT_STREAM
from tasklogs.log import digest
from tasklogs.log.append import Append
from tasklogs.log.continuation import StoredTail
from tasklogs.log.entry import NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.publish import messages
from tasklogs.publish.departure import Departure
from tasklogs.publish.features import ServerFeatures
from tasklogs.publish.reconnect import StreamEnded
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.session import Session
from tasklogs.publish.source import Effect, Listener, Mark, Shown
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.task_agents_pb2_grpc import TaskAgentsStub
from tests.agent.conftest import FAST, until
from tests.support.fakes.agent_server import FakeServer, FakeSession, Refusal


def entry(entry_id: int, type_: EntryType, content: str, **names: str) -> Entry:
    time = Time(1000 + entry_id, 0)
    return Entry(entry_id, type_, time, content.encode(), names=Names(**names))


CONVERSATION = [
    entry(0, EntryType.INPUT, "run the tests", source_id="m0"),
    entry(1, EntryType.THOUGHT, "which?"),
    entry(2, EntryType.TOOL_CALL, "{}", name="bash", call_id="c1"),
    entry(3, EntryType.TOOL_RESULT, "passed", name="bash", call_id="c1"),
    entry(4, EntryType.OUTPUT, "they pass", source_id="m1"),
]
PLAIN = [replace(one, names=NO_NAMES) for one in (CONVERSATION[0], CONVERSATION[4])]


@dataclass
class ScriptedSource:
    """Shows a list of entries. `skips`: it leaves out what the listener has sealed."""

    entries: Sequence[Entry]
    skips: bool = True
    health: AppHealth = AppHealth.HEALTHY
    kind: str = "agentapi"
    listener: Listener | None = None
    skipped: list[int] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def attach(self, listener: Listener) -> None:
        self.listener = listener
        self.show()

    def detach(self) -> None:
        self.listener = None

    def offer(self) -> None: ...

    def committed(self, mark: Mark) -> None: ...

    async def refresh(self) -> None:
        self.show()

    def show(self) -> None:
        assert self.listener is not None
        count = min(self.listener.sealed, len(self.entries) - 1) if self.skips else 0
        self.skipped.append(count)
        shown = Shown(list(self.entries[count:]), process=1, lags=False, skipped=count)
        self.effects.append(self.listener.show_list(shown, ()))

    def show_event(self, shown: Entry) -> Effect:
        assert self.listener is not None
        return self.listener.show_entry(shown, 1)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


@asynccontextmanager
async def session_of(
    server: FakeServer, source: ScriptedSource, sent_tails: SentTails | None = None
) -> AsyncIterator[FakeSession]:
    """Run one stream; it must not end by itself."""
    number = len(server.sessions) + 1
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = TaskAgentsStub(channel).Connect(None)
        session = Session(call, source, Departure(), sent_tails or SentTails(), FAST)
        running = asyncio.create_task(session.run(None))
        try:
            session_at_server = await server.session(number)
            await until(lambda: source.listener is not None)
            yield session_at_server
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            await asyncio.wait({running})


def old(server: FakeServer) -> FakeServer:
    """Make it a server that names nothing in its Welcome."""
    server.store.features, server.store.entry_types = (), ()
    return server


async def test_hello_names_what_the_agent_understands(server: FakeServer) -> None:
    async with session_of(server, ScriptedSource([])) as session:
        assert list(session.hello.features) == [
            "content_delta_pieces",
            "entry_names",
            "compressed_messages",
        ]


async def test_a_server_that_names_everything_gets_everything(server: FakeServer) -> None:
    with capture_logs() as logged:
        async with session_of(server, ScriptedSource(CONVERSATION)):
            await until(lambda: server.store.entries == CONVERSATION)
    assert [one for one in logged if one["log_level"] == "warning"] == []


async def test_a_server_that_names_nothing_gets_only_input_and_output_without_names(
    server: FakeServer,
) -> None:
    async with session_of(old(server), ScriptedSource(CONVERSATION)):
        await until(lambda: server.store.entries == PLAIN)


async def test_a_server_that_does_not_name_deltas_gets_whole_entries(server: FakeServer) -> None:
    """A server from before 0.1 reads a delta as one that empties the tail."""
    screen = "\n".join(f"line {number}" for number in range(100))
    shown = ["", "a", "ab", screen, f"# {screen}", screen[:40]]
    source = ScriptedSource([entry(0, EntryType.OUTPUT, shown[0])])
    async with session_of(old(server), source) as session:
        for number, text in enumerate(shown, start=1):
            source.entries = [entry(0, EntryType.OUTPUT, text)]
            await session.sync(number)
            assert server.store.contents == [text]
        appends = [one.append for one in session.messages if one.HasField("append")]
    assert len(appends) == len(shown)
    assert not any(one.HasField("tail") for one in appends)


async def test_only_a_server_that_names_it_gets_compressed_messages(server: FakeServer) -> None:
    screen = "$ make\n" + "\n".join([" " * 80] * 100)
    source = ScriptedSource([entry(0, EntryType.OUTPUT, screen)])
    sent = []
    for features in ((), ("compressed_messages",)):
        server.store.epochs.clear()
        server.store.features = features
        async with session_of(server, source) as session:
            await session.sync(1)
            assert server.store.contents == [screen]
            sent.append((session.compressed, session.appended_bytes))
    (none, all_bytes), (one, few_bytes) = sent
    assert (none, one) == (0, 1)
    assert all_bytes > 8000
    assert few_bytes < 200


async def test_a_long_history_travels_compressed_and_waits_for_few_acks(
    server: FakeServer,
) -> None:
    screens = [
        entry(id_, EntryType.OUTPUT, f"$ make {id_}\n" + "\n".join([" " * 80] * 1000))
        for id_ in range(20)
    ]
    source = ScriptedSource(screens)
    server.store.features = AGENT_STREAM
    server.acknowledges = False
    server.append_bytes = 1024 * 1024
    async with session_of(server, source) as session:
        await until(lambda: len(session.appends) == 4)
        source.show_event(entry(20, EntryType.OUTPUT, "done"))
        session.ack(3)
        reports = len(session.messages)
        session.send(pb.ServerMessage(report_state=pb.ReportState()))
        await until(lambda: len(session.messages) > reports)
        assert len(session.appends) == 4, "they wait for the ack of all"
        session.ack(4)
        await until(lambda: server.store.contents[-1] == "done")
        sizes = [one.ByteSize() for one in session.appends]
        assert max(sizes) <= 256 * 1024
        assert 1024 * 1024 - 256 * 1024 < sum(sizes[:4]) <= 1024 * 1024
        assert session.compressed == len(sizes) == 7
        assert session.received_bytes < 15_000


async def test_a_long_history_that_does_not_shrink_is_not_split(server: FakeServer) -> None:
    noise = random.Random(1)
    texts = [entry(id_, EntryType.OUTPUT, noise.randbytes(20_000).hex()) for id_ in range(20)]
    server.store.features = AGENT_STREAM
    server.append_bytes = 1024 * 1024
    async with session_of(server, ScriptedSource(texts)) as session:
        await until(lambda: server.store.entries == texts)
    assert (len(session.appends), session.compressed) == (1, 0)


async def test_an_old_server_gets_a_long_history_in_long_appends(server: FakeServer) -> None:
    screens = [entry(id_, EntryType.OUTPUT, " " * 80_000) for id_ in range(20)]
    server.append_bytes = 1024 * 1024
    async with session_of(old(server), ScriptedSource(screens)) as session:
        await until(lambda: server.store.entries == screens)
    assert len(session.appends) == 2


async def test_the_epoch_of_a_server_without_names_goes_on(server: FakeServer) -> None:
    """The digest is that of the entries as they were sent."""
    source, sent_tails = ScriptedSource(CONVERSATION), SentTails()
    async with session_of(old(server), source, sent_tails):
        await until(lambda: server.store.entries == PLAIN)
    later = entry(5, EntryType.INPUT, "thanks", source_id="m2")
    source.entries = [*CONVERSATION, later]
    for tails in (sent_tails, SentTails()):
        async with session_of(server, source, tails) as session:
            await session.sync(1)
            assert server.store.entries == [*PLAIN, replace(later, names=NO_NAMES)]
    assert len(server.store.epochs) == 1
    assert [len(one.appends) for one in server.sessions] == [1, 1, 0]


async def test_entries_of_types_that_the_server_does_not_name_are_omitted(
    server: FakeServer,
) -> None:
    server.store.entry_types = (EntryType.INPUT, EntryType.OUTPUT, EntryType.TOOL_CALL)
    async with session_of(server, ScriptedSource(CONVERSATION)):
        expected = [one for one in CONVERSATION if one.type in server.store.entry_types]
        await until(lambda: server.store.entries == expected)


async def test_omitted_entries_are_counted_and_logged_once_per_stream(server: FakeServer) -> None:
    source = ScriptedSource(CONVERSATION)
    with capture_logs() as logged:
        for _ in range(2):
            async with session_of(old(server), source) as session:
                await session.sync(1)
                await session.sync(2)
                source.show_event(entry(5, EntryType.NOTICE, "compacted"))
    types = ["THOUGHT", "TOOL_CALL", "TOOL_RESULT"]
    omitted = {"event": "entries.omitted", "log_level": "warning", "count": 3, "types": types}
    assert [one for one in logged if one["event"] == "entries.omitted"] == [omitted, omitted]


async def test_an_event_of_an_omitted_type_changes_nothing(server: FakeServer) -> None:
    source = ScriptedSource(CONVERSATION[:1])
    with capture_logs() as logged:
        async with session_of(old(server), source) as session:
            assert source.show_event(CONVERSATION[1]) is Effect.STALE
            assert source.show_event(CONVERSATION[4]) is Effect.UNCERTAIN  # ids with a gap
            source.entries = CONVERSATION
            await session.sync(1)
            assert server.store.entries == PLAIN
    assert [one["count"] for one in logged if one["event"] == "entries.omitted"] == [1]


async def test_a_list_without_its_known_prefix_is_placed_right_after_omitted_entries(
    server: FakeServer,
) -> None:
    """Positions in the task app's list are not those in the store if entries are omitted."""
    source = ScriptedSource([entry(0, EntryType.INPUT, "a"), entry(1, EntryType.OUTPUT, "b")])
    async with session_of(old(server), source) as session:
        expected = []
        for number in range(2, 40):
            type_ = EntryType.THOUGHT if number % 7 == 3 else EntryType.OUTPUT
            source.entries = [*source.entries, entry(number, type_, f"entry {number}")]
            await session.sync(number)
            expected = [one for one in source.entries if one.type is not EntryType.THOUGHT]
            assert server.store.entries == expected
    assert len(server.store.epochs) == 1
    assert max(source.skipped) == 3
    assert set(source.effects) == {Effect.CHANGED}


async def test_a_stored_tail_of_an_unknown_type_begins_a_new_epoch(server: FakeServer) -> None:
    """A later agent stored it. This agent's list cannot have it, and it must not end the agent."""
    server.store.apply(append_of(*PLAIN, entry(5, EntryType.NOTICE, "compacted")))
    real, unknown = server.store.welcome, 99

    def welcome(**limits: int) -> pb.Welcome:
        welcome = real(**limits)
        if len(server.store.epochs) == 1:
            welcome.tail.type = unknown  # type: ignore[assignment]
        return welcome

    server.store.welcome = welcome  # type: ignore[method-assign]
    async with session_of(server, ScriptedSource(PLAIN)):
        await until(lambda: len(server.store.epochs) == 2 and server.store.entries == PLAIN)


async def test_a_stored_tail_with_other_names_begins_a_new_epoch(server: FakeServer) -> None:
    tail = replace(PLAIN[1], names=Names(source_id="another"))
    server.store.apply(append_of(PLAIN[0], tail))
    async with session_of(server, ScriptedSource(PLAIN)):
        await until(lambda: len(server.store.epochs) == 2 and server.store.entries == PLAIN)


async def test_the_tail_of_welcome_has_the_names(server: FakeServer) -> None:
    """They are compared when this agent is asked whether it sent that tail."""
    source, sent_tails = ScriptedSource(CONVERSATION), SentTails()
    async with session_of(server, source, sent_tails):
        await until(lambda: server.store.entries == CONVERSATION)
    assert sent_tails.process_of(StoredTail.of(CONVERSATION[-1])) == 1
    source.entries = CONVERSATION[:-1]
    async with session_of(server, source, sent_tails) as session:
        await session.sync(1)  # the same process withdrew its tail
        assert server.store.entries == CONVERSATION[:-1]
    assert len(server.store.epochs) == 1


async def test_an_unknown_message_of_a_newer_server_is_ignored(server: FakeServer) -> None:
    source = ScriptedSource(PLAIN[:1])
    async with session_of(server, source) as session:
        session.send(pb.ServerMessage())
        session.send(pb.ServerMessage.FromString(b"\xfa\x01\x02\x08\x01"))  # field 31
        source.entries = PLAIN
        await session.sync(1)
        assert server.store.entries == PLAIN


async def test_a_refusal_as_unsupported_ends_the_stream_with_its_reason(
    server: FakeServer,
) -> None:
    server.acknowledges = False
    said = "this server does not support entries of type 3"
    async with grpc.aio.insecure_channel(server.address) as channel:
        call: Any = TaskAgentsStub(channel).Connect(None)
        session = Session(call, ScriptedSource(CONVERSATION), Departure(), SentTails(), FAST)
        running = asyncio.create_task(session.run(None))
        peer = await server.session()
        await until(lambda: peer.appends)
        peer.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED", message=said))
        with pytest.raises(StreamEnded) as ended:
            await running
    assert (ended.value.reason, ended.value.info) == (said, "UNSUPPORTED")
    assert ended.value.is_refusal


def test_unknown_features_and_types_of_a_newer_server_are_ignored() -> None:
    newer: Any = pb.Welcome(features=["entry_names", "time_travel"])
    newer.entry_types.extend([1, 2, 99])
    features = ServerFeatures.of(newer)
    assert features == ServerFeatures(entry_names=True)
    only_unknown: Any = pb.Welcome()
    only_unknown.entry_types.append(99)
    assert ServerFeatures.of(only_unknown).entry_types == frozenset()


def test_an_entry_that_fits_is_not_copied() -> None:
    features = ServerFeatures()
    assert features.fitted(PLAIN[0]) is PLAIN[0]
    assert features.fitted_all(CONVERSATION) == PLAIN


def append_of(*entries: Entry) -> pb.LogAppend:
    return messages.log_append(Append(open_epoch=True, entries=entries)).append


def test_the_digest_of_fitted_entries_is_that_of_the_entries_without_names() -> None:
    fitted = ServerFeatures().fitted_all(CONVERSATION)
    assert digest.seal_all(fitted) == digest.seal_all(PLAIN)
