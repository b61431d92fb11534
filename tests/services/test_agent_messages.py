"""What an agent sends is counted before it is decoded."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from tasklogs.log.append import Append
from tasklogs.log.delta import MAX_PIECES
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import CompressedMessage
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded
from tasklogs_server.services import agent_codec, agent_messages
from tests.support.fixtures.agent_stream import log_entry

# What fits into a message of 4 MiB.
PARTS = 2_000_000
HELLO, FEATURE = b"\x0a", b"\x22\x00"
APPEND, TAIL, CONTENT = b"\x12", b"\x22", b"\x1a"
ENTRY, PIECE = b"\x2a\x00", b"\x0a\x00"
# `tasklogs agent` 0.1.0 packs at most so many: 3 MiB, with 64 bytes for each.
MOST_OF_AN_AGENT = 49_152


class Counted(LoopShare):
    """Counts the pieces of work."""

    pieces = 0

    async def run(self, piece: Any) -> Any:
        self.pieces += 1
        return piece()


def nested(tag: bytes, encoded: bytes) -> bytes:
    size, length = len(encoded), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return tag + bytes(length) + bytes([size]) + encoded


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: bytes) -> pb.AgentMessage:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(agent_messages, "_decoded", decode)


@pytest.mark.usefixtures("never_decoded")
def test_a_large_first_message_is_refused() -> None:
    large = nested(APPEND, ENTRY * PARTS)

    with pytest.raises(InvalidFields, match="at most 4096 bytes"):
        agent_messages.first_message(large)


def test_a_hello_of_our_agent_is_small() -> None:
    hello = pb.AgentMessage(
        hello=pb.Hello(
            agent_version="x" * 100,
            task_app="x" * 100,
            build_number=2**31 - 1,
            features=["a_name_of_a_feature"] * 100,
        )
    )
    encoded = hello.SerializeToString()

    assert agent_messages.first_message(encoded) == hello
    assert len(encoded) > agent_messages.MAX_HELLO_BYTES / 2


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize(
    "encoded",
    [
        nested(APPEND, ENTRY * PARTS),
        nested(APPEND, ENTRY * 30_000) * 2,
        nested(APPEND, ENTRY * 50_001),
    ],
    ids=["two million", "in two parts", "one too many"],
)
async def test_too_many_entries_are_refused(encoded: bytes) -> None:
    share = Counted()

    with pytest.raises(LimitExceeded, match="at most 50000 entries"):
        await agent_messages.message(encoded, share)

    assert share.pieces <= 51, "it counts no further than the limit"


@pytest.mark.usefixtures("never_decoded")
async def test_too_many_pieces_are_refused() -> None:
    pieces = nested(APPEND, nested(TAIL, nested(CONTENT, PIECE * PARTS)))
    share = Counted()

    with pytest.raises(InvalidFields) as refused:
        await agent_messages.message(pieces, share)

    assert [one.field for one in refused.value.violations] == ["append.tail.content.pieces"]
    assert share.pieces <= MAX_PIECES / 1000 + 1


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize(
    "encoded",
    [
        nested(APPEND, b"\x08\x01" * PARTS),
        nested(APPEND, TAIL + b"\x00" + b"") * (PARTS // 2),
        nested(APPEND, nested(TAIL, CONTENT + b"\x00") * (PARTS // 2)),
        nested(APPEND, b"\x7a\x00" * PARTS),
        b"\x0a\x00" * PARTS,
        b"\x7b\x7c" * PARTS,
    ],
    ids=["numbers", "appends", "contents", "unknown", "hellos", "groups"],
)
async def test_many_other_fields_are_refused(encoded: bytes) -> None:
    share = Counted()

    with pytest.raises(InvalidFields) as refused:
        await agent_messages.message(encoded, share)

    assert [one.field for one in refused.value.violations] == ["request"]
    assert share.pieces <= 2


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize(
    "encoded",
    [nested(HELLO, FEATURE * PARTS), nested(HELLO, FEATURE * 2000) * 900],
    ids=["one", "many, which protobuf merges"],
)
async def test_features_of_a_later_hello_are_counted(encoded: bytes) -> None:
    share = Counted()

    with pytest.raises(InvalidFields, match="a Hello must have at most 4096 bytes"):
        await agent_messages.message(encoded, share)

    assert share.pieces <= 1


@pytest.mark.parametrize("cut", [1, 2, 3000, 20_000])
async def test_a_large_message_that_is_cut_off_is_refused(cut: int) -> None:
    encoded = _append(5000).SerializeToString()

    with pytest.raises(InvalidFields, match="cannot be decoded"):
        await agent_messages.message(encoded[:-cut], Counted())


async def test_as_many_entries_as_an_agent_packs_are_accepted() -> None:
    share = Counted()

    message = await agent_messages.message(_append(MOST_OF_AN_AGENT).SerializeToString(), share)
    append = await agent_codec.append(message.append, share)

    assert [entry.id for entry in append.entries] == list(range(MOST_OF_AN_AGENT))
    assert append == agent_codec.append_at_once(message.append)
    assert share.pieces > MOST_OF_AN_AGENT / 150, "other calls go on meanwhile"


async def test_long_entries_are_decoded_one_by_one() -> None:
    entries = [log_entry(id_, "x" * 900_000) for id_ in range(4)]
    message = pb.AgentMessage(append=pb.LogAppend(sequence=1, open_epoch=True, entries=entries))
    share = Counted()

    append = await agent_codec.append(message.append, share)

    assert append == agent_codec.append_at_once(message.append)
    assert share.pieces == 3, "the first one needs no turn"


async def test_as_many_pieces_as_a_delta_may_have_are_accepted() -> None:
    append = pb.LogAppend(sequence=1)
    append.tail.time.seconds = 1
    append.tail.content.crc32 = 0
    for number in range(MAX_PIECES):
        append.tail.content.pieces.add(bytes=number, text="x" * 10)
    encoded = pb.AgentMessage(append=append).SerializeToString()

    message = await agent_messages.message(encoded, Counted())

    assert message.append == append


def test_an_append_splits_into_parts_that_apply_in_order() -> None:
    entries = [Entry(id_, EntryType.OUTPUT, Time(1, 0), b"") for id_ in range(25)]
    append = Append(sequence=3, open_epoch=True, entries=entries, waited_seconds=2.0)

    parts = append.parts(10, 1000)

    assert [entry for part in parts for entry in part.entries] == entries
    assert [len(part.entries) for part in parts] == [10, 10, 5]
    assert [part.open_epoch for part in parts] == [True, False, False]
    assert {part.sequence for part in parts} == {3}
    assert append.parts(25, 1000) == [append]


def test_parts_of_an_append_have_few_bytes_or_one_entry() -> None:
    sizes = [10, 10, 30, 5, 10, 5, 1]
    entries = [Entry(id_, EntryType.OUTPUT, Time(1, 0), b"x" * n) for id_, n in enumerate(sizes)]

    parts = Append(entries=entries).parts(10, 20)

    split = [[len(entry.content) for entry in part.entries] for part in parts]
    assert split == [[10, 10], [30], [5, 10, 5], [1]]


def _append(count: int) -> pb.AgentMessage:
    return pb.AgentMessage(
        append=pb.LogAppend(
            sequence=1, open_epoch=True, entries=[log_entry(id_, "") for id_ in range(count)]
        )
    )


def _compressed(encoded: bytes, *, size_bytes: int | None = None) -> bytes:
    compressed = CompressedMessage(
        zlib=zlib.compress(encoded), size_bytes=len(encoded) if size_bytes is None else size_bytes
    )
    return pb.AgentMessage(compressed=compressed).SerializeToString()


async def test_a_compressed_message_is_the_message_inside() -> None:
    whole = _append(6000)
    share = Counted()

    assert await agent_messages.message(_compressed(whole.SerializeToString()), share) == whole
    assert share.pieces >= 2, "other calls go on meanwhile"


async def test_the_parts_of_a_compressed_message_are_counted_before_it_is_decoded(
    never_decoded_inside: list[bytes],
) -> None:
    with pytest.raises(LimitExceeded, match="at most 50000 entries"):
        await agent_messages.message(_compressed(nested(APPEND, ENTRY * 60_000)), Counted())

    assert len(never_decoded_inside) == 1, "only the message outside"


@pytest.fixture
def never_decoded_inside(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    decode, seen = agent_messages._decoded, list[bytes]()

    def decode_seen(encoded: bytes) -> pb.AgentMessage:
        seen.append(encoded)
        return decode(encoded)

    monkeypatch.setattr(agent_messages, "_decoded", decode_seen)
    return seen


@pytest.mark.parametrize(
    "encoded",
    [
        _compressed(b"\x12\x00", size_bytes=3),
        _compressed(bytes(1 << 26), size_bytes=1 << 18),
        _compressed(bytes(1 << 26)),
        _compressed(b"", size_bytes=0),
        pb.AgentMessage(compressed=CompressedMessage(zlib=b"?", size_bytes=1)).SerializeToString(),
        _compressed(_compressed(b"\x12\x00")),
        b"\x3a\x00",
    ],
    ids=["too short", "a bomb", "too long", "empty", "not zlib", "compressed twice", "unset"],
)
async def test_a_message_that_cannot_be_expanded_is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidFields) as refused:
        await agent_messages.message(encoded, Counted())

    assert [one.field for one in refused.value.violations] == ["compressed"]


async def test_what_is_inside_must_be_a_message() -> None:
    with pytest.raises(InvalidFields, match="cannot be decoded"):
        await agent_messages.message(_compressed(b"\x12\xff"), Counted())
