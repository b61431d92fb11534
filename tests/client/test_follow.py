"""Follows over streams that break, repeat and contradict, against a scripted server."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    Follow,
    FollowEvent,
    LogSource,
    Progress,
    Reconnected,
    Reconnecting,
    ReconnectWaits,
    StatusChanged,
    TaskLogsClient,
    TaskStatus,
    delta_codec,
    errors,
)
from tasklogs.client import follow_streams as follow_module
from tasklogs.log.delta import Delta, Piece
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import (
    ACTIVE,
    END,
    ERROR,
    HOLD,
    PAUSED,
    LogServer,
    Play,
    Step,
    caught_up,
    change,
    compressed,
    delta,
    entries,
    entry,
    epoch_started,
    log_server,
    progress,
    status,
    withdrawn,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.content_deltas import content_delta, result_of

SOON = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=10))
TASK = "local/demo"
CODE = grpc.StatusCode


def refusal(code: grpc.StatusCode, reason: str = "", *details: Message, **metadata: str) -> Refusal:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="tasklogs.v1", metadata=metadata)
    return Refusal(code, "no", [info, *details] if reason else list(details))


CONFLICT = refusal(CODE.FAILED_PRECONDITION, "TASK_STATE_CONFLICT", status="TASK_STATUS_ERROR")
DRAINING = refusal(CODE.UNAVAILABLE, "DRAINING")


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, reconnect_waits=SOON) as client:
        yield client


async def take(follow: Follow, count: int) -> list[FollowEvent]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [await anext(follow) for _ in range(count)]


def contents(events: list[FollowEvent]) -> list[tuple[int, str]]:
    return [
        (each.id, each.content)
        for event in events
        if isinstance(event, EntriesChanged)
        for each in event.entries
    ]


async def test_every_event_has_its_type_and_cursor(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(0, "hello", 2), entry(1, "hi", 3)),
            caught_up("c1"),
            withdrawn("c4", 1, 4),
            epoch_started("c5", 2, 5),
            HOLD,
        ]
    ]

    events = await take(client.follow(TASK, tail=5), 5)

    assert [type(event) for event in events] == [
        StatusChanged,
        EntriesChanged,
        CaughtUp,
        EntryWithdrawn,
        EpochStarted,
    ]
    assert [event.cursor for event in events] == ["c0", "c1", "c1", "c4", "c5"]
    assert isinstance(events[0], StatusChanged)
    assert events[0].status is TaskStatus.ACTIVE
    assert contents(events) == [(0, "hello"), (1, "hi")]
    assert events[3] == EntryWithdrawn(cursor="c4", epoch=1, id=1, revision=4)
    assert events[4] == EpochStarted(cursor="c5", epoch=2, revision=5)
    assert server.follows == [
        task_logs_pb2.FollowTaskLogsRequest(task=TASK, tail=5, deltas=True, compressed=True)
    ]


async def test_an_entry_that_grows_keeps_its_names(
    server: LogServer, client: TaskLogsClient
) -> None:
    whole = entry(1, "a", 1)
    whole.source_id, whole.name, whole.call_id = "m1", "bash", "c1"
    grown = delta("c2", 1, 1, 2, keep=1, text="b", crc32=zlib.crc32(b"ab"))
    server.streams = [[status("c0", ACTIVE), entries("c1", whole), grown, HOLD]]

    events = await take(client.follow(TASK), 3)

    assert contents(events) == [(1, "a"), (1, "ab")]
    changed = [
        one for event in events if isinstance(event, EntriesChanged) for one in event.entries
    ]
    assert [(one.source_id, one.name, one.call_id) for one in changed] == [("m1", "bash", "c1")] * 2


async def test_growth_is_yielded_as_the_whole_entry_and_the_appended_text(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "für", 1)),
            delta("c2", 1, 1, 2, keep=4, text=" élise"),
            delta("c3", 1, 2, 3, keep=3, text="nf"),
            entries("c4", entry(1, "fünf Uhr", 4)),
            entries("c5", entry(1, "füllen", 5)),
            HOLD,
        ]
    ]

    events = await take(client.follow(TASK), 6)

    changes = [event.changes[0] for event in events if isinstance(event, EntriesChanged)]
    assert [change.entry.content for change in changes] == [
        "für",
        "für élise",
        "fünf",
        "fünf Uhr",
        "füllen",
    ]
    assert [(change.replaces, change.kept, change.appended) for change in changes] == [
        (None, 0, "für"),
        (1, 3, " élise"),
        (2, 2, None),
        (3, 4, " Uhr"),
        (4, 2, None),
    ]
    assert [change.entry.revision for change in changes] == [1, 2, 3, 4, 5]


PIECES = {
    "nothing before the change is different": ("grün!", Delta((Piece(0, 2, b"x"),)), 2, None),
    "a change in the middle": (
        "eins zwei drei",
        Delta((Piece(0, 5, b"2"), Piece(9, 5))),
        5,
        None,
    ),
    "text that equals the base is kept": ("über", Delta((Piece(0, 0, "üb!".encode()),)), 2, None),
    "the base at other places": ("ab", Delta((Piece(1, 1), Piece(0, 1))), 0, None),
    "pieces that keep everything append": ("ab", Delta((Piece(0, 1), Piece(1, 1, b"c"))), 2, "c"),
    "a repeated base appends": ("é", Delta((Piece(0, 2), Piece(0, 2))), 1, "é"),
    "the base as text, and more": ("ab", Delta((Piece(0, 0, b"abc"),)), 2, "c"),
    "nothing changes": ("ab", Delta((Piece(0, 1), Piece(1, 1))), 2, ""),
    "empty": ("ab", Delta((Piece(0, 0),)), 0, None),
}


@pytest.mark.parametrize(
    ("before", "pieces", "kept", "appended"), PIECES.values(), ids=PIECES.keys()
)
async def test_a_change_of_pieces_says_what_stays(
    server: LogServer,
    client: TaskLogsClient,
    before: str,
    pieces: Delta,
    kept: int,
    appended: str | None,
) -> None:
    grown = change("c2", 1, 1, 2, content_delta(before, pieces))
    server.streams = [[entries("c1", entry(1, before, 1)), grown, HOLD]]
    _, event = await take(client.follow(TASK), 2)
    assert isinstance(event, EntriesChanged)
    [changed] = event.changes
    assert changed.entry.content == result_of(before.encode(), pieces).decode()
    assert (changed.replaces, changed.kept, changed.appended) == (1, kept, appended)


async def test_an_entry_that_lost_its_front_still_says_what_was_appended(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [
            entries("c1", entry(1, "0123456789", 1)),
            entries("c2", entry(1, "456789abc", 2, dropped_bytes=4)),
            HOLD,
        ]
    ]

    events = await take(client.follow(TASK), 2)

    assert isinstance(events[1], EntriesChanged)
    assert events[1].changes == (
        EntryChange(entry=events[1].entries[0], replaces=1, kept=0, appended="abc"),
    )


@pytest.mark.parametrize(
    "fate",
    [
        END,
        DRAINING,
        refusal(CODE.ABORTED),
        refusal(CODE.INTERNAL),
        refusal(CODE.UNKNOWN),
        refusal(CODE.CANCELLED),
    ],
    ids=["end", "draining", "aborted", "internal", "unknown", "cancelled"],
)
@pytest.mark.parametrize("after", [1, 2, 3, 4])
async def test_wherever_a_stream_breaks_the_next_continues_after_its_last_cursor(
    server: LogServer, client: TaskLogsClient, after: int, fate: Step
) -> None:
    told: list[Reconnecting | Reconnected] = []
    messages = [
        status("c0", ACTIVE),
        entries("c1", entry(0, "hello", 1)),
        entries("c2", entry(1, "hi", 2)),
        caught_up("c2"),
        delta("c3", 1, 2, 3, keep=2, text=" you"),
    ]
    last = {1: "c0", 2: "c1", 3: "c2", 4: "c2"}[after]
    grown = messages[4] if after < 3 else entries("c3", entry(1, "hi you", 3))
    server.streams = [
        [*messages[:after], fate],
        [status(last, ACTIVE), *messages[after:4], grown, HOLD],
    ]

    events = await take(client.follow(TASK, tail=2, on_reconnect=told.append), 5)

    assert contents(events) == [(0, "hello"), (1, "hi"), (1, "hi you")]
    assert sum(isinstance(event, StatusChanged) for event in events) == 1
    assert sum(isinstance(event, CaughtUp) for event in events) == 1
    first, second = server.follows
    assert (first.tail, first.cursor) == (2, "")
    assert not second.HasField("tail")
    assert second.cursor == last
    assert isinstance(told[0], Reconnecting)
    assert isinstance(told[1], Reconnected)
    assert told[0].attempt == 1


async def test_a_repeated_entry_is_yielded_once(server: LogServer, client: TaskLogsClient) -> None:
    one, two = entry(0, "hello", 1), entry(1, "hi", 2)
    server.streams = [
        [status("c0", ACTIVE), entries("c1", one, two), epoch_started("c3", 2, 3), DRAINING],
        [
            status("c3", ACTIVE),
            entries("c2", one, two),
            epoch_started("c3", 2, 3),
            withdrawn("c2", 1, 2),
            entries("c4", two, entry(0, "again", 4), epoch=2),
            HOLD,
        ],
    ]

    events = await take(client.follow(TASK), 4)

    assert contents(events) == [(0, "hello"), (1, "hi"), (0, "again")]
    assert sum(isinstance(event, EpochStarted) for event in events) == 1


async def test_a_delta_that_is_repeated_is_applied_once(
    server: LogServer, client: TaskLogsClient
) -> None:
    grown = delta("c2", 1, 1, 2, keep=1, text="b")
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "a", 1)),
            grown,
            grown,
            delta("c3", 1, 2, 3, keep=2, text="c"),
            HOLD,
        ]
    ]

    assert contents(await take(client.follow(TASK), 4)) == [(1, "a"), (1, "ab"), (1, "abc")]
    assert len(server.follows) == 1


async def test_a_delta_may_build_on_an_entry_that_the_new_stream_repeated(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(1, "hi", 1)), DRAINING],
        [
            status("c1", ACTIVE),
            entries("c1", entry(1, "hi", 1)),
            delta("c2", 1, 1, 2, keep=2, text=" you"),
            HOLD,
        ],
    ]

    assert contents(await take(client.follow(TASK), 3)) == [(1, "hi"), (1, "hi you")]
    assert len(server.follows) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        delta("c2", 1, 7, 8, keep=2, text="!"),
        delta("c2", 0, 1, 8, keep=2, text="!"),
        delta("c2", 1, 1, 8, keep=2, text="!", epoch=2),
        delta("c2", 1, 1, 8, keep=99, text="!"),
        delta("c2", 1, 1, 8, keep=2, text="!", crc32=1),
        delta("c2", 1, 1, 8, keep=-1, text="!"),
        delta("c2", 1, 1, 8, keep=1, text="!"),
        delta("c2", 1, 1, 8, keep=3, text="!").SerializeToString(),
        change("c2", 1, 1, 8, None),
        change("c2", 1, 1, 8, types_pb2.ContentDelta(crc32=0)),
        change("c2", 1, 1, 8, delta_codec.encode(Delta((Piece(0, 3), Piece(2, 2))), 0)),
        change("c2", 1, 1, 8, delta_codec.encode(Delta((Piece(0, 0),) * 4097), 0)),
        change("c2", 1, 1, 8, content_delta("äa", Delta((Piece(0, 2), Piece(2, 1, b"!"))))),
    ],
    ids=[
        "other base",
        "other entry",
        "other epoch",
        "past the end",
        "another result",
        "negative",
        "in a character",
        "no checksum",
        "an unknown form",
        "no pieces",
        "a piece past the end",
        "too many pieces",
        "pieces of another base",
    ],
)
async def test_a_delta_that_does_not_fit_is_never_applied(
    server: LogServer, client: TaskLogsClient, wrong: Step
) -> None:
    told: list[Reconnecting | Reconnected] = []
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(1, "éa", 1)), wrong, HOLD],
        [status("c1", ACTIVE), entries("c8", entry(1, "éa!", 8)), DRAINING],
        [status("c8", ACTIVE), entries("c9", entry(1, "éa!!", 9)), HOLD],
    ]

    events = await take(client.follow(TASK, on_reconnect=told.append), 4)

    assert contents(events) == [(1, "éa"), (1, "éa!"), (1, "éa!!")]
    assert [(follow.cursor, follow.deltas) for follow in server.follows] == [
        ("", True),
        ("c1", False),
        ("c8", True),
    ]
    assert isinstance(told[0], Reconnecting)
    assert isinstance(told[0].error, errors.StreamInconsistent)


async def test_a_delta_on_what_an_earlier_stream_sent_is_not_applied(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(1, "hi", 1)), DRAINING],
        [status("c1", ACTIVE), delta("c2", 1, 1, 2, keep=2, text=" you"), HOLD],
        [status("c1", ACTIVE), entries("c2", entry(1, "hi all", 2)), HOLD],
    ]

    assert contents(await take(client.follow(TASK), 3)) == [(1, "hi"), (1, "hi all")]
    assert server.follows[2].deltas is False


async def test_a_server_can_set_the_wait(server: LogServer, client: TaskLogsClient) -> None:
    told: list[Reconnecting | Reconnected] = []
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=40_000_000))
    server.streams = [
        [status("c0", ACTIVE), refusal(CODE.UNAVAILABLE, "DRAINING", retry)],
        [refusal(CODE.RESOURCE_EXHAUSTED, "", retry)],
        [status("c0", PAUSED), HOLD],
    ]
    follow = client.follow(TASK, on_reconnect=told.append)
    await anext(follow)

    began = asyncio.get_running_loop().time()
    await anext(follow)

    assert asyncio.get_running_loop().time() - began >= 0.08
    waits = [each for each in told if isinstance(each, Reconnecting)]
    assert [each.attempt for each in waits] == [1, 2]
    for each in waits:
        assert timedelta(milliseconds=40) <= each.delay <= timedelta(milliseconds=60)


async def test_waits_grow_until_a_stream_continues(server: LogServer) -> None:
    told: list[Reconnecting | Reconnected] = []
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        # A status alone does not count as progress.
        [status("c0", ACTIVE), DRAINING],
        [DRAINING],
        [status("c0", ACTIVE), progress("c0"), DRAINING],
        [status("c0", PAUSED), HOLD],
    ]
    waits = ReconnectWaits(first=timedelta(milliseconds=1), cap=timedelta(milliseconds=3))

    async with TaskLogsClient(server.address, reconnect_waits=waits) as client:
        await take(client.follow(TASK, on_reconnect=told.append), 2)

    retries = [each for each in told if isinstance(each, Reconnecting)]
    assert [each.attempt for each in retries] == [1, 2, 3, 1]
    for each, ceiling in zip(retries, [1, 2, 3, 1], strict=True):
        assert ceiling / 2 <= each.delay / timedelta(milliseconds=1) <= ceiling


async def test_a_server_that_vanishes_and_comes_back_is_found_again() -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with log_server() as server:
            server.streams = [[status("c0", ACTIVE), entries("c1", entry(0, "a", 1)), HOLD]]
            client = TaskLogsClient(server.address, reconnect_waits=SOON)
            await client.__aenter__()
            follow = client.follow(TASK)
            events = await take(follow, 2)
            reached = asyncio.Event()
            waiting = asyncio.create_task(_signalling(reached, follow))
            await reached.wait()
        port = int(server.address.rpartition(":")[2])
        async with log_server(port) as server, client:
            server.streams = [[status("c1", ACTIVE), entries("c2", entry(1, "b", 2)), HOLD]]
            events.append(await waiting)

    assert contents(events) == [(0, "a"), (1, "b")]
    assert [follow.cursor for follow in server.follows] == ["c1"]


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (refusal(CODE.NOT_FOUND, "TASK_NOT_FOUND"), errors.TaskNotFound),
        (refusal(CODE.INVALID_ARGUMENT), errors.InvalidArgument),
        (refusal(CODE.OUT_OF_RANGE, "CURSOR_EXPIRED"), errors.CursorExpired),
        (refusal(CODE.UNAUTHENTICATED, "TOKEN_EXPIRED"), errors.Unauthenticated),
        (refusal(CODE.PERMISSION_DENIED, "PERMISSION_DENIED"), errors.PermissionDenied),
        (refusal(CODE.RESOURCE_EXHAUSTED), errors.LimitExceeded),
        (refusal(CODE.DATA_LOSS, "LOG_CORRUPT"), errors.LogCorrupt),
    ],
    ids=lambda value: value.code.name if isinstance(value, Refusal) else "",
)
@pytest.mark.parametrize("begun", [False, True])
async def test_a_permanent_error_ends_a_follow(
    server: LogServer,
    client: TaskLogsClient,
    refused: Refusal,
    kind: type[errors.TaskLogsRpcError],
    begun: bool,
) -> None:
    server.streams = [[status("c0", ACTIVE), refused] if begun else [refused]]
    follow = client.follow(TASK)
    if begun:
        await anext(follow)

    with pytest.raises(kind):
        await anext(follow)
    with pytest.raises(StopAsyncIteration):
        await anext(follow)
    assert len(server.follows) == 1


@pytest.mark.parametrize(
    "code", [CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED, CODE.NOT_FOUND, CODE.UNIMPLEMENTED]
)
async def test_what_a_proxy_says_ends_a_new_follow_and_no_running_one(
    server: LogServer, client: TaskLogsClient, code: grpc.StatusCode
) -> None:
    said = refusal(code)
    server.streams = [[said], [status("c0", ACTIVE), said], [said], [said], [progress("c1"), HOLD]]
    with pytest.raises(errors.TaskLogsRpcError):
        await anext(client.follow(TASK))

    follow = client.follow(TASK, progress=True)

    assert (await take(follow, 2))[1] == Progress(cursor="c1")
    assert len(server.follows) == 5


async def test_an_expired_cursor_is_reported_with_the_oldest_valid_one(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[refusal(CODE.OUT_OF_RANGE, "CURSOR_EXPIRED", oldest_cursor="c7")]]

    with pytest.raises(errors.CursorExpired) as caught:
        await anext(client.follow(TASK, cursor="c1"))

    assert caught.value.oldest_cursor == "c7"


async def test_a_status_refuses_a_new_follow(server: LogServer, client: TaskLogsClient) -> None:
    server.streams = [[CONFLICT]]

    with pytest.raises(errors.TaskStateConflict) as caught:
        await anext(client.follow(TASK))

    assert caught.value.status is TaskStatus.ERROR


async def test_a_status_that_refuses_reads_does_not_end_a_follow_that_reconnects(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        [CONFLICT],
        [status("c0", ERROR), DRAINING],
        [status("c0", ACTIVE), entries("c1", entry(0, "a", 1)), HOLD],
    ]

    events = await take(client.follow(TASK, source=LogSource.LIVE), 4)

    assert [event.status.name for event in events if isinstance(event, StatusChanged)] == [
        "ACTIVE",
        "ERROR",
        "ACTIVE",
    ]
    live, snapshot = task_logs_pb2.LOG_SOURCE_LIVE, task_logs_pb2.LOG_SOURCE_SNAPSHOT
    assert [follow.source for follow in server.follows] == [live, live, snapshot, live]


async def test_a_server_that_refuses_even_the_snapshot_ends_it(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[status("c0", ACTIVE), DRAINING], [CONFLICT], [CONFLICT]]
    follow = client.follow(TASK)
    await anext(follow)

    with pytest.raises(errors.TaskStateConflict):
        await anext(follow)


@pytest.mark.parametrize("reason", ["STORE_BUSY", "TOO_MANY_REQUESTS"])
async def test_a_first_call_is_retried_if_the_server_is_too_busy(
    server: LogServer, client: TaskLogsClient, reason: str
) -> None:
    told: list[Reconnecting | Reconnected] = []
    wait = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
    busy = refusal(CODE.RESOURCE_EXHAUSTED, reason, wait)
    server.streams = [[busy], [busy], [status("c0", ACTIVE), HOLD]]

    await anext(client.follow(TASK, on_reconnect=told.append))

    assert [type(each) for each in told] == [Reconnecting, Reconnecting, Reconnected]


async def test_a_first_call_is_retried_only_if_its_error_can_pass(
    server: LogServer, client: TaskLogsClient
) -> None:
    told: list[Reconnecting | Reconnected] = []
    server.streams = [[DRAINING], [DRAINING], [status("c0", ACTIVE), HOLD], [refusal(CODE.ABORTED)]]

    await anext(client.follow(TASK, tail=3, on_reconnect=told.append))
    with pytest.raises(errors.TaskLogsRpcError, match="ABORTED"):
        await anext(client.follow(TASK))

    assert [type(each) for each in told] == [Reconnecting, Reconnecting, Reconnected]
    assert [follow.tail for follow in server.follows[:3]] == [3, 3, 3]


async def test_connect_timeout_ends_with_the_last_reason(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.play = _always(DRAINING)

    with pytest.raises(errors.ServerDraining):
        await anext(client.follow(TASK, connect_timeout=timedelta(milliseconds=50)))

    assert len(server.follows) > 1


async def test_a_missing_server_is_unavailable_and_not_a_timeout() -> None:
    async with log_server() as server:
        address = server.address
    async with TaskLogsClient(address, reconnect_waits=SOON) as client:
        with pytest.raises(errors.Unavailable):
            await anext(client.follow(TASK, connect_timeout=timedelta(milliseconds=200)))


async def test_a_silent_server_is_abandoned_after_connect_timeout(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[HOLD]]

    with pytest.raises(errors.DeadlineExceeded):
        # Long enough for the follow to reach the server; otherwise there is nothing to leave.
        await anext(client.follow(TASK, connect_timeout=timedelta(seconds=1)))

    await server.left.wait()


async def test_connect_timeout_does_not_limit_a_running_follow(
    server: LogServer, client: TaskLogsClient
) -> None:
    later = asyncio.Event()
    server.streams = [[progress("c0"), later, entries("c1", entry(0, "a", 1)), HOLD]]
    follow = client.follow(TASK, connect_timeout=timedelta(milliseconds=50))

    waiting = asyncio.create_task(anext(follow))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    later.set()

    assert contents([await waiting]) == [(0, "a")]


async def test_a_token_that_is_refused_is_asked_for_once_more(server: LogServer) -> None:
    tokens = iter(["old", "new", "third", "fourth"])
    refused = refusal(CODE.UNAUTHENTICATED, "TOKEN_EXPIRED")
    server.streams = [
        [status("c0", ACTIVE), refused],
        [status("c0", PAUSED), refused],
        [refused],
    ]

    async def provide() -> str:
        return next(tokens)

    async with TaskLogsClient(server.address, token=provide, reconnect_waits=SOON) as client:
        follow = client.follow(TASK)
        await take(follow, 2)
        with pytest.raises(errors.Unauthenticated):
            await anext(follow)

    assert server.tokens == ["Bearer old", "Bearer new", "Bearer third"]


async def test_progress_is_yielded_only_on_request(
    server: LogServer, client: TaskLogsClient
) -> None:
    script: list[Step] = [
        status("c0", ACTIVE),
        progress("c5"),
        entries("c6", entry(0, "a", 6)),
        HOLD,
    ]
    server.streams = [script, script]

    quiet, asked = client.follow(TASK), client.follow(TASK, progress=True)

    assert [type(event) for event in await take(quiet, 2)] == [StatusChanged, EntriesChanged]
    assert (await take(asked, 3))[1] == Progress(cursor="c5")


async def test_a_follow_resumes_where_progress_left_it(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("c0", ACTIVE), progress("c5"), DRAINING],
        [status("c5", PAUSED), HOLD],
    ]

    await take(client.follow(TASK), 2)

    assert server.follows[1].cursor == "c5"


async def test_an_event_of_a_newer_server_is_skipped_but_its_cursor_is_used(
    server: LogServer, client: TaskLogsClient
) -> None:
    newer = task_logs_pb2.FollowTaskLogsResponse(cursor="c5")
    server.streams = [[status("c0", ACTIVE), newer, DRAINING], [status("c5", PAUSED), HOLD]]

    await take(client.follow(TASK), 2)

    assert server.follows[1].cursor == "c5"


@pytest.mark.parametrize("before", [True, False], ids=["field first", "cursor first"])
async def test_a_case_of_tomorrow_is_skipped_and_its_cursor_is_used(
    server: LogServer, client: TaskLogsClient, *, before: bool
) -> None:
    case = b"\x9a\x06\x03new"  # field 99, three bytes
    cursor = task_logs_pb2.FollowTaskLogsResponse(cursor="c5").SerializeToString()
    raw = case + cursor if before else cursor + case
    newer = task_logs_pb2.FollowTaskLogsResponse.FromString(raw)
    assert len(newer.SerializeToString()) == len(raw)  # the field is sent on
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(0, "a", 1)), newer, DRAINING],
        [status("c5", ACTIVE), entries("c6", entry(1, "b", 2)), HOLD],
    ]

    events = await take(client.follow(TASK), 3)

    assert [type(event).__name__ for event in events] == [
        *("StatusChanged", "EntriesChanged", "EntriesChanged")
    ]
    assert server.follows[1].cursor == "c5"


async def test_a_reader_that_was_cancelled_misses_nothing(
    server: LogServer, client: TaskLogsClient
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    server.streams = [
        [status("c0", ACTIVE), go_on, entries("c1", entry(0, "a", 1)), HOLD],
    ]
    follow = client.follow(TASK)
    await anext(follow)
    reading = asyncio.create_task(_signalling(reached, follow))
    await reached.wait()

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    # The stream has sent the event: if the cancelled read took it, no second one brings it.
    await server.held.wait()

    assert contents([await anext(follow)]) == [(0, "a")]
    assert len(server.follows) == 1
    assert not server.left.is_set()


async def test_a_follow_that_is_dropped_or_closed_leaves_the_server(
    server: LogServer, client: TaskLogsClient
) -> None:
    for end in ("dropped", "closed", "block"):
        server.left.clear()
        server.streams = [[status("c0", ACTIVE), HOLD]]
        follow = client.follow(TASK)
        async for _ in follow:
            break
        if end == "closed":
            await follow.aclose()
        elif end == "block":
            async with follow:
                pass
        del follow
        await server.left.wait()


async def test_closing_the_client_ends_the_iteration_of_its_follows(server: LogServer) -> None:
    reached = asyncio.Event()
    server.streams = [[status("c0", ACTIVE), HOLD]]
    async with TaskLogsClient(server.address) as client:
        follow = client.follow(TASK)
        await anext(follow)
        reading = asyncio.create_task(_rest(reached, follow))
        await reached.wait()

    assert await reading == []


async def test_a_follow_that_waits_to_reconnect_can_be_closed(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), DRAINING]]
    told = asyncio.Event()
    hour = ReconnectWaits(first=timedelta(hours=1), cap=timedelta(hours=1))
    async with TaskLogsClient(server.address, reconnect_waits=hour) as client:
        follow = client.follow(TASK, on_reconnect=lambda _: told.set())
        await anext(follow)
        reading = asyncio.create_task(_rest(asyncio.Event(), follow))
        await told.wait()

    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await reading == []


async def test_a_tail_and_a_cursor_together_are_refused_at_once(client: TaskLogsClient) -> None:
    with pytest.raises(ValueError, match="not both"):
        client.follow(TASK, tail=1, cursor="c")


def _always(step: Step) -> Play:
    async def play(_: task_logs_pb2.FollowTaskLogsRequest) -> AsyncIterator[Step]:
        yield step

    return play


async def _signalling(reached: asyncio.Event, follow: Follow) -> FollowEvent:
    """Set `reached` in the loop iteration in which the follow begins to wait."""
    reached.set()
    return await anext(follow)


async def _rest(reached: asyncio.Event, follow: Follow) -> list[FollowEvent]:
    reached.set()
    return [event async for event in follow]


async def test_a_stream_that_falls_silent_is_replaced(
    server: LogServer, client: TaskLogsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "_DEFAULT_PROGRESS_INTERVAL", timedelta(0))
    monkeypatch.setattr(follow_module, "_SILENCE_MARGIN", timedelta(seconds=0.1))
    server.streams = [
        [status("a", ACTIVE), entries("b", entry(0, "x", 1)), HOLD],
        [status("c", ACTIVE), caught_up("d"), HOLD],
    ]
    told: list[Reconnecting | Reconnected] = []
    follow = client.follow(TASK, on_reconnect=told.append)

    assert [type(one) for one in await take(follow, 3)] == [StatusChanged, EntriesChanged, CaughtUp]

    assert server.follows[1].cursor == "b"
    assert isinstance(told[0], Reconnecting)
    assert told[0].error.message == "the stream brought nothing for 0.1 s"


@pytest.mark.parametrize(("interval", "silence"), [(None, 25), (1, 11), (3600, 3610)])
def test_a_stream_may_be_silent_for_its_interval_and_ten_seconds(
    interval: int | None, silence: int
) -> None:
    request = task_logs_pb2.FollowTaskLogsRequest()
    if interval is not None:
        request.progress_interval.FromTimedelta(timedelta(seconds=interval))
    assert follow_module._silence_of(request) == timedelta(seconds=silence)


async def test_the_first_status_has_the_tasks_uuid(
    server: LogServer, client: TaskLogsClient
) -> None:
    first = status("a", ACTIVE)
    first.status.task_id = "0b54a3f0-6d7c-4a53-9a53-0d8b1c6c6f11"
    server.streams = [[first, status("b", PAUSED), HOLD]]
    events = await take(client.follow(TASK), 2)
    assert [one.task_id for one in events if isinstance(one, StatusChanged)] == [
        first.status.task_id,
        None,
    ]


async def test_compressed_messages_and_ends_of_cursors_are_what_they_stand_for(
    server: LogServer, client: TaskLogsClient
) -> None:
    grown = delta("", 1, 1, 2, keep=1, text="b", crc32=zlib.crc32(b"ab"))
    grown.cursor_end = "c2"
    server.streams = [
        [
            status("task-c0", ACTIVE),
            compressed(entries("", entry(1, "a", 1)), cursor_end="c1"),
            grown,
            compressed(withdrawn("", 1, 3), cursor_end="ask-c3"),
            END,
        ]
    ]

    events = await take(client.follow(TASK), 4)

    assert [event.cursor for event in events] == ["task-c0", "task-c1", "task-c2", "task-c3"]
    assert contents(events) == [(1, "a"), (1, "ab")]
    assert isinstance(events[3], EntryWithdrawn)


def _bad(**fields: bytes | int) -> task_logs_pb2.FollowTaskLogsResponse:
    message = task_logs_pb2.FollowTaskLogsResponse(cursor="c1")
    message.compressed.MergeFrom(types_pb2.CompressedMessage(**fields))  # type: ignore[arg-type]
    return message


@pytest.mark.parametrize(
    "bad",
    [
        _bad(zlib=zlib.compress(b"\x3a\x00"), size_bytes=3),
        _bad(zlib=b"?", size_bytes=1),
        _bad(zlib=zlib.compress(bytes(1 << 25)), size_bytes=1 << 18),
        _bad(zlib=zlib.compress(b"\x3a\xff"), size_bytes=2),
        compressed(_bad(zlib=zlib.compress(b"\x3a\x00"), size_bytes=2)),
        task_logs_pb2.FollowTaskLogsResponse(cursor_end="longer than the cursor"),
    ],
    ids=["too short", "not zlib", "a bomb", "no message", "compressed twice", "an end alone"],
)
async def test_what_cannot_be_expanded_is_read_again_uncompressed(
    server: LogServer, client: TaskLogsClient, bad: Step
) -> None:
    server.streams = [
        [status("c0", ACTIVE), bad, HOLD],
        [status("c0", ACTIVE), entries("c1", entry(1, "a", 1)), HOLD],
    ]

    events = await take(client.follow(TASK), 2)

    assert contents(events) == [(1, "a")]
    assert [one.compressed for one in server.follows] == [True, False]
    assert [one.cursor for one in server.follows] == ["", "c0"]
