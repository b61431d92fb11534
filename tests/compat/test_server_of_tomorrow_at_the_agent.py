"""A server of tomorrow, or an older one, at our agent: the conversation arrives whole."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2
from tests.agent.conftest import running_agent, until
from tests.compat import tomorrow
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.reference_store import ReferenceStore
from tests.support.fakes.task_app import FakeTaskApp

OF_TODAY = (
    "content_delta_pieces",
    "entry_names",
    *("types_filter", "task_labels", "create_request_id"),
    *("upload_entries", "upload_parts", "progress_interval"),
)


@dataclasses.dataclass
class StoreWithItsOwnWelcome(ReferenceStore):
    """Its Welcome has these features and types, and is of tomorrow if it is asked to be."""

    features: tuple[str, ...] = ()
    entry_types: Sequence[int] = ()
    is_of_tomorrow: bool = False
    tail_type: int | None = None

    def welcome(self, *args: Any, **fields: Any) -> pb.Welcome:
        """Return the Welcome of the reference store, changed."""
        welcome = super().welcome(*args, **fields)
        del welcome.features[:], welcome.entry_types[:]
        welcome.features.extend(self.features)
        welcome.entry_types.extend(
            types_pb2.TaskLogType.ValueType(number) for number in self.entry_types
        )
        if self.tail_type is not None and welcome.HasField("tail"):
            welcome.tail.type = types_pb2.TaskLogType.ValueType(self.tail_type)
        if not self.is_of_tomorrow:
            return welcome
        return tomorrow.as_today(tomorrow.grown(welcome), pb.Welcome)


def nudge() -> pb.ServerMessage:
    """Return a message that no agent of today knows."""
    return tomorrow.as_today(
        tomorrow.make("ServerMessage", nudge={"text": "new"}), pb.ServerMessage
    )


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp(interval_seconds=0.005) as fake:
        fake.become_ready()
        fake.say("user", "hello")
        fake.say("agent", "wor")
        yield fake


async def converse(app: FakeTaskApp, server: FakeServer) -> None:
    """Let the tail grow and be rewritten, and another entry follow, each seen by the server."""
    for change in ("ld", "!"):
        app.grow(change)
        app.tick()
        await until(lambda: server.store.contents == shown(app))
    app.say("user", "next")
    app.tick()
    await until(lambda: server.store.contents == shown(app))


def shown(app: FakeTaskApp) -> list[str]:
    return [message.content for message in app.messages]


async def test_unknown_messages_are_left_out_and_nothing_else_stops(app: FakeTaskApp) -> None:
    async with FakeServer() as server, running_agent(app, server):
        session = await server.session()
        session.send(nudge())
        await until(lambda: server.store.contents == shown(app))
        session.send(nudge())
        await converse(app, server)
        session.send(nudge())
        assert (await session.sync(1)).sync_done.id == 1
        assert len(server.sessions) == 1


async def test_an_unknown_message_in_place_of_the_welcome_is_not_taken_for_one(
    app: FakeTaskApp,
) -> None:
    """A later version may not send anything before Welcome. The agent dials again."""
    async with FakeServer() as server:
        first = server.store.welcome
        server.store.welcome = lambda **_: pb.Welcome(epoch=-1)  # type: ignore[method-assign]
        async with running_agent(app, server):
            await server.session()
            server.store.welcome = first  # type: ignore[method-assign]
            await until(lambda: server.store.contents == shown(app))


async def test_a_welcome_of_tomorrow_is_understood(app: FakeTaskApp) -> None:
    store = StoreWithItsOwnWelcome(
        features=(*OF_TODAY, "a_feature_of_tomorrow"),
        entry_types=(1, 2, 3, 4, 5, 6, 7, tomorrow.NEW_NUMBER),
        is_of_tomorrow=True,
    )
    async with FakeServer(store) as server:
        async with running_agent(app, server):
            await converse(app, server)
        # A second agent finds the stored log and continues it.
        before = len(store.epochs)
        async with running_agent(app, server):
            await server.session(2)
            app.grow(" more")
            app.tick()
            await until(lambda: server.store.contents == shown(app))
        assert len(store.epochs) == before


async def test_acks_and_syncs_with_unknown_fields_are_answered(app: FakeTaskApp) -> None:
    async with FakeServer() as server, running_agent(app, server):
        server.acknowledges = False
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        ack = pb.ServerMessage(ack=pb.Ack(sequence=1))
        session.send(tomorrow.as_today(tomorrow.grown(ack), pb.ServerMessage))
        app.say("user", "next")
        app.tick()
        await until(lambda: len(session.appends) == 2)
        session.send(tomorrow.as_today(tomorrow.grown(_ack(2)), pb.ServerMessage))
        for message in (
            pb.ServerMessage(report_state=pb.ReportState()),
            pb.ServerMessage(sync=pb.Sync(id=7)),
        ):
            session.send(tomorrow.as_today(tomorrow.grown(message), pb.ServerMessage))
        assert (await session.answer(7)).sync_done.id == 7
        assert server.store.contents == shown(app)


def _ack(sequence: int) -> pb.ServerMessage:
    return pb.ServerMessage(ack=pb.Ack(sequence=sequence))


async def test_a_drain_with_unknown_fields_makes_the_agent_dial_again(app: FakeTaskApp) -> None:
    async with FakeServer() as server, running_agent(app, server):
        session = await server.session()
        drain = pb.ServerMessage(drain=pb.Drain())
        session.send(tomorrow.as_today(tomorrow.grown(drain), pb.ServerMessage))
        await server.session(2)
        await until(lambda: server.store.contents == shown(app))


@pytest.mark.parametrize("type_", [7, tomorrow.NEW_NUMBER])
async def test_a_stored_tail_of_an_unknown_type_does_not_keep_the_conversation_out(
    app: FakeTaskApp, type_: int
) -> None:
    """Another agent stored it. This agent cannot continue that epoch, so it opens the next."""
    store = StoreWithItsOwnWelcome(tail_type=type_, entry_types=(1, 2, 3, 4, 5, 6, 7, 99))
    async with FakeServer(store) as server:
        async with running_agent(app, server):
            await until(lambda: store.contents == shown(app))
        app.say("user", "next")
        async with running_agent(app, server):
            await until(lambda: store.contents == shown(app))
        assert len(store.epochs) == 2
        assert [len(epoch.entries) for epoch in store.epochs] == [3, 4]


async def test_an_older_server_gets_only_what_every_server_knows(app: FakeTaskApp) -> None:
    """Its Welcome names no features and no types."""
    async with FakeServer(StoreWithItsOwnWelcome()) as server, running_agent(app, server):
        session = await server.session()
        await converse(app, server)
        appends = session.appends

    entries = [entry for append in appends for entry in append.entries]
    assert {entry.type for entry in entries} == {
        types_pb2.TASK_LOG_TYPE_INPUT,
        types_pb2.TASK_LOG_TYPE_OUTPUT,
    }
    for entry in entries:
        assert (entry.source_id, entry.name, entry.call_id) == ("", "", "")
    assert not any(append.HasField("tail") for append in appends)
    replaced = [
        one.id
        for append, after in pairwise(appends)
        for one in after.entries[:1]
        if append.entries and append.entries[-1].id == one.id
    ]
    assert replaced, "no entry grew"
    for message in session.messages:
        assert message.WhichOneof("message") is not None
