"""Uploads are decoded in small pieces, to what protobuf would decode them to."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.entry import Entry, EntryType
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.services import upload_codec as codec
from tests.services.test_upload_entries import entry

T = TypeVar("T")
ROLES = {"user": EntryType.INPUT, "agent": EntryType.OUTPUT}
MIB = 1024 * 1024


@pytest.fixture
def without_collections() -> Iterator[None]:
    """A garbage collection looks at all that the tests have imported."""
    gc.disable()
    yield
    gc.enable()


class Pieces(LoopShare):
    """A share that takes no rests. It measures its longest piece: CPU time, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.longest = 0.0

    async def run(self, piece: Callable[[], T]) -> T:
        began = time.thread_time()
        try:
            return piece()
        finally:
            self.count += 1
            self.longest = max(self.longest, time.thread_time() - began)


def body(**fields: Any) -> bytes:
    data = Struct()
    json_format.ParseDict(fields, data)
    return of_data(data)


def of_messages(values: list[Value]) -> bytes:
    return of_data(Struct(fields={"messages": Value(list_value=ListValue(values=values))}))


def of_data(data: Struct) -> bytes:
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=data)
    return request.SerializeToString()


def message(id_: int, content: str = "hello", **more: Any) -> dict[str, Any]:
    role = "agent" if id_ % 2 else "user"
    return {"id": id_, "role": role, "content": content, "time": "2026-01-02T03:04:05Z"} | more


async def decode(encoded: bytes) -> list[Entry]:
    return await codec.snapshot_entries(encoded, Pieces())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)
CONTENTS = st.lists(st.text(max_size=40) | st.just("x" * 20_000), max_size=120)


@given(CONTENTS, st.dictionaries(st.text(max_size=5), JSON, max_size=5))
async def test_messages_decode_to_what_was_sent_whatever_else_they_have(
    contents: list[str], more: dict[str, Any]
) -> None:
    messages = [more | message(index, content) for index, content in enumerate(contents)]

    entries = await decode(body(**more | {"messages": messages}))

    assert [(one.id, one.type, one.content.decode()) for one in entries] == [
        (one["id"], ROLES[one["role"]], one["content"]) for one in messages
    ]


@given(st.lists(st.text(max_size=40) | st.just("x" * 20_000), max_size=120))
async def test_entries_decode_to_what_was_sent(contents: list[str]) -> None:
    sent = [entry(index, content) for index, content in enumerate(contents)]
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_ENTRIES, entries=sent)

    entries = await decode(request.SerializeToString())

    assert [(one.id, one.content.decode()) for one in entries] == list(enumerate(contents))


@given(st.lists(st.text(max_size=40), max_size=120), st.booleans())
async def test_a_part_has_its_entries_and_says_whether_it_is_the_last(
    contents: list[str], last: bool
) -> None:
    sent = [entry(index, content) for index, content in enumerate(contents)]
    message = pb.UploadLogSnapshotInPartsRequest(entries=sent, last=last)

    part = await codec.part_of(message.SerializeToString(), Pieces())
    decoded = codec.DecodedEntries()
    for run in part.runs:
        codec.decode_run(part, run, decoded)

    assert part.last is last
    assert [(one.id, one.content.decode()) for one in decoded.take()] == list(enumerate(contents))


async def test_fields_that_come_twice_are_merged_as_protobuf_does_it() -> None:
    first, second = body(messages=[message(0)], other=1), body(messages=[message(1, "b")])
    [only] = await decode(first + second)
    assert (only.id, only.content) == (1, b"b")
    assert [one.id for one in await decode(second + body(other=1))] == [1]


def of_many_keys() -> Struct:
    return Struct(fields={f"{index:x}": Value(bool_value=True) for index in range(50_000)})


async def test_an_object_with_many_keys_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InvalidFields, match="data: must have at most 100 fields"):
        await decode(of_data(of_many_keys()))


async def test_a_message_with_many_keys_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InvalidFields, match=r"data\.messages: must have at most 100 fields"):
        await decode(of_messages([Value(struct_value=of_many_keys())]))


async def test_a_large_message_is_decoded_without_what_the_server_ignores() -> None:
    deep = {f"{index:x}": index for index in range(50_000)}
    large = message(0, "x" * MIB, extra=deep, role="user")
    for wrong in ("id", "role", "content", "time"):
        with pytest.raises(InvalidFields, match=rf"data.messages\[0\].{wrong}"):
            await decode(body(messages=[large | {wrong: deep}]))
    [only] = await decode(body(messages=[large]))
    assert only.content == b"x" * MIB


EMPTY_ENTRY, EMPTY_VALUE, EMPTY_DATA = b"\x1a\0", b"\x0a\0", b"\x12\0"


async def test_too_many_entries_are_refused_before_they_are_decoded() -> None:
    pieces = Pieces()
    format_ = b"\x08\x02"
    with pytest.raises(LimitExceeded, match="at most 50000 entries") as refused:
        await codec.snapshot_entries(format_ + EMPTY_ENTRY * 2_000_000, pieces)
    assert refused.value.limit is Limit.APPEND_ENTRIES
    assert pieces.count <= 51
    with pytest.raises(LimitExceeded, match="at most 100000 entries"):
        await codec.part_of(EMPTY_VALUE * 2_000_000, Pieces())
    with pytest.raises(LimitExceeded, match="at most 50000 entries"):
        await decode(of_messages([Value()] * 50_001))


async def test_many_fields_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidFields, match="at most 100 fields"):
        await decode(EMPTY_DATA * 1_000_000)


async def test_only_the_first_of_many_bad_messages_are_named() -> None:
    with pytest.raises(InvalidFields) as refused:
        await decode(of_messages([Value()] * 50_000))
    assert 1 <= len(refused.value.violations) < 30


async def test_no_piece_of_a_large_upload_takes_long(without_collections: None) -> None:
    """Decoding 30,000 messages in one go takes 300 ms."""
    pieces = Pieces()
    messages = [message(index, f"message {index}") for index in range(30_000)]
    assert len(await codec.snapshot_entries(body(messages=messages), pieces)) == 30_000
    assert pieces.count > 600
    assert pieces.longest < 0.05


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x08\x01\x12\x03\x0a\x05\0",
        b"\x08\x02\x1a\x02\x0a\x05",
        b"\x08\x01\x12\x08\x0a\x06\x0a\0\x0a\0\x12\0",
    ],
    ids=repr,
)
async def test_what_is_malformed_inside_is_an_invalid_field(encoded: bytes) -> None:
    with pytest.raises(InvalidFields, match="request: cannot be decoded"):
        await decode(encoded)


def test_the_tags_are_those_of_the_protos() -> None:
    numbers = {
        name: field.number
        for kind in (pb.UploadLogSnapshotRequest, types.TaskLogEntry)
        for name, field in kind.DESCRIPTOR.fields_by_name.items()
    }
    assert (
        numbers["format"] << 3,
        numbers["data"] << 3 | 2,
        numbers["entries"] << 3 | 2,
    ) == (codec._FORMAT, codec._DATA, codec._ENTRIES)
