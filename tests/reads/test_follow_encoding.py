"""Events of a follow, decoded as a client does."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from uuid import UUID

import pytest

from tasklogs import delta_codec
from tasklogs.compression import expanded
from tasklogs.log.delta import Delta
from tasklogs.log.entry import EntryType, Time
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.domain.status import NO_FACTS, derive
from tasklogs_server.reads.feed import Message
from tasklogs_server.reads.follow_encoding import encode_compressed, encode_event
from tasklogs_server.reads.follow_events import (
    CaughtUp,
    FollowEvent,
    Progress,
    StatusChanged,
    TailSent,
)
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.records import EpochOpened, TailHead, TailWithdrawn

HEAD = TailHead(7, EntryType.OUTPUT, Time(5, 6), revision=9, dropped_bytes=0, part_bytes=3)
GROWN = TailSent(2, HEAD, b"abcdef", base_revision=8, delta=Delta.keeping(3, b"def"))
EVENTS: dict[str, FollowEvent] = {
    "status": StatusChanged(derive(NO_FACTS), UUID(int=7)),
    "entries": EntriesChanged(2, GROWN.encoded, last_id=7, revision=9),
    "entry_withdrawn": TailWithdrawn(9, 2, 0, 7),
    "epoch_started": EpochOpened(9, 2),
    "caught_up": CaughtUp(),
    "progress": Progress(),
}


def decoded(event: FollowEvent, *, as_delta: bool = False) -> pb.FollowTaskLogsResponse:
    return pb.FollowTaskLogsResponse.FromString(encode_event("place", event, as_delta=as_delta))


@pytest.mark.parametrize(("kind", "event"), EVENTS.items(), ids=EVENTS.keys())
def test_an_event_is_sent_with_its_cursor(kind: str, event: FollowEvent) -> None:
    message = decoded(event)
    assert (message.cursor, message.WhichOneof("event")) == ("place", kind)


def test_a_change_of_the_tail_is_sent_whole_or_as_its_delta() -> None:
    [entry] = decoded(GROWN).entries.logs
    assert (entry.id, entry.revision, entry.content) == (7, 9, "abcdef")
    assert decoded(GROWN).entries.epoch == 2
    delta = decoded(GROWN, as_delta=True).delta
    assert (delta.epoch, delta.id, delta.base_revision, delta.revision) == (2, 7, 8, 9)
    assert delta_codec.decode(delta.content) == Delta.keeping(3, b"def")
    assert (delta.time.seconds, delta.time.nanos) == (5, 6)
    assert delta.content.crc32 == zlib.crc32(b"abcdef")


def test_a_change_without_a_delta_is_sent_whole() -> None:
    new = TailSent(2, HEAD, b"abcdef", base_revision=None, delta=None)
    assert decoded(new, as_delta=True) == decoded(GROWN)


SCREEN = b"$ make\n" + (b" " * 80 + b"\n") * 200


@pytest.mark.parametrize(("kind", "event"), EVENTS.items(), ids=EVENTS.keys())
def test_a_small_event_is_not_compressed_and_its_cursor_is_an_end(
    kind: str, event: FollowEvent
) -> None:
    cursor = Cursor(UUID(int=7), 9)
    message = pb.FollowTaskLogsResponse.FromString(encode_compressed(cursor, event, as_delta=False))
    assert (message.cursor, message.WhichOneof("event")) == ("", kind)
    assert cursor.encode().endswith(message.cursor_end)
    assert len(message.cursor_end) == 14


def test_a_screen_is_compressed_with_its_cursor_outside() -> None:
    head = TailHead(7, EntryType.OUTPUT, Time(5, 6), revision=9, dropped_bytes=0, part_bytes=3)
    event = TailSent(2, head, SCREEN, base_revision=None, delta=None)
    encoded = encode_compressed(Cursor(UUID(int=7), 9), event, as_delta=True)
    assert len(encoded) < 300
    message = pb.FollowTaskLogsResponse.FromString(encoded)
    assert message.WhichOneof("event") == "compressed"
    assert len(message.cursor_end) == 14
    inside = pb.FollowTaskLogsResponse.FromString(expanded(message.compressed))
    assert inside == pb.FollowTaskLogsResponse(entries=decoded(event).entries)


def screens(count: int, text: bytes) -> EntriesChanged:
    heads = [replace(HEAD, id=id_, revision=id_ + 3) for id_ in range(count)]
    entries = [TailSent(2, head, text, None, None).encoded for head in heads]
    return EntriesChanged(2, b"".join(entries), count - 1, count + 2, text)


def test_a_long_history_of_screens_becomes_messages_that_can_be_compressed() -> None:
    event = screens(100, SCREEN)
    message = Message(Cursor(UUID(int=7), 102), event)
    parts = message.parts()
    assert len(parts) == 7
    assert parts is message.parts()
    found: list[int] = []
    for part in parts:
        outside = pb.FollowTaskLogsResponse.FromString(part.encoded(as_delta=True, compressed=True))
        inside = pb.FollowTaskLogsResponse.FromString(expanded(outside.compressed))
        assert part.cursor == Cursor(UUID(int=7), inside.entries.logs[-1].revision)
        assert inside.entries.epoch == 2
        found += [entry.id for entry in inside.entries.logs]
    assert found == list(range(100))
    sent = [len(part.encoded(as_delta=True, compressed=True)) for part in parts]
    assert sum(sent) < len(event.encoded) / 50
    assert message.size_bytes == 2 * len(event.encoded) + len(SCREEN) + sum(sent)


@pytest.mark.parametrize(
    "event",
    [
        screens(3, SCREEN),
        screens(1, SCREEN * 20),
        screens(1000, random.Random(1).randbytes(500).hex().encode()),
    ],
    ids=["short", "one entry", "hexadecimal"],
)
def test_a_message_that_cannot_become_much_shorter_in_parts_stays_one(
    event: EntriesChanged,
) -> None:
    message = Message(Cursor(UUID(int=7), event.revision), event)
    assert list(message.parts()) == [message]


@pytest.mark.parametrize("earlier", [0, 1, 2**16, 2**32 - 1, 2**32, 2**40])
@pytest.mark.parametrize("later", [2**16, 2**32 - 1, 2**32, 2**32 + 5, 2**62])
def test_a_cursor_is_its_end_behind_any_earlier_cursor(earlier: int, later: int) -> None:
    before, cursor = Cursor(UUID(int=2**127 + 3), earlier), Cursor(UUID(int=2**127 + 3), later)
    message = pb.FollowTaskLogsResponse.FromString(
        encode_compressed(cursor, CaughtUp(), as_delta=False)
    )
    if message.cursor:
        assert message.cursor == cursor.encode()
        assert not message.cursor_end
    elif earlier <= later:
        end = message.cursor_end
        assert before.encode()[: -len(end)] + end == cursor.encode()
