"""The encoded heads of entries equal what protobuf writes."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from hypothesis import example, given
from hypothesis import strategies as st

from tasklogs.log.entry import EntryType, Names, Time
from tasklogs.v1 import task_logs_pb2, types_pb2
from tasklogs_server.wire.entries import encode_fields, encode_head

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    id_=st.integers(0, 2**31 - 1),
    type_=st.sampled_from(EntryType),
    seconds=st.integers(-62135596800, 253402300799) | st.just(0),
    nanos=st.integers(0, 999_999_999) | st.just(0),
    revision=st.integers(1, 2**63 - 1),
    dropped_bytes=st.integers(0, 2**40) | st.just(0),
    content=st.text(max_size=300),
    names=st.builds(Names, *(st.text(max_size=200) for _ in Names._fields)),
)
@example(0, EntryType.INPUT, 0, 0, 1, 0, "", Names())
@example(0, EntryType.TOOL_CALL, 0, 0, 1, 0, "{}", Names(call_id="call_1"))
@example(0, EntryType.TOOL_CALL, 0, 0, 1, 0, "{}", Names("s" * 255, "n" * 255, "c" * 255))
def test_a_head_and_its_content_are_the_encoded_entry(
    id_: int,
    type_: EntryType,
    seconds: int,
    nanos: int,
    revision: int,
    dropped_bytes: int,
    content: str,
    names: Names,
) -> None:
    expected = task_logs_pb2.GetTaskLogsResponse()
    entry = expected.logs.add(
        id=id_,
        type=types_pb2.TaskLogType.ValueType(type_),
        content=content,
        revision=revision,
        dropped_bytes=dropped_bytes,
        **names._asdict(),
    )
    entry.time.SetInParent()
    entry.time.seconds, entry.time.nanos = seconds, nanos
    encoded = content.encode()
    time = Time(seconds, nanos)
    head = encode_head(id_, type_, time, revision, dropped_bytes, len(encoded), names)
    decoded = task_logs_pb2.GetTaskLogsResponse.FromString(head + encoded)
    assert decoded == expected
    if content:  # an empty content is encoded here, and left out by protobuf
        assert head + encoded == expected.SerializeToString(deterministic=True)


def cpu_seconds(work: Callable[[], object]) -> float:
    began = process_time()
    for _ in range(5_000):
        work()
    return process_time() - began


def test_a_head_costs_about_what_protobuf_takes_for_its_fields() -> None:
    """CPU time, in turns, and the least of each: another process's load does not count."""

    def by_protobuf() -> bytes:
        entry = types_pb2.TaskLogEntry(id=1234, type=types_pb2.TASK_LOG_TYPE_OUTPUT)
        entry.time.seconds, entry.time.nanos = 1_760_000_123, 123_456_000
        entry.revision = 123_456
        return entry.SerializeToString()

    def by_us() -> bytes:
        at = Time(1_760_000_123, 123_456_000)
        return encode_head(1234, EntryType.OUTPUT, at, 123_456, 0, 500)

    turns = [(cpu_seconds(by_us), cpu_seconds(by_protobuf)) for _ in range(9)]
    ours, least = (min(column) for column in zip(*turns, strict=True))
    assert ours < 3 * least, turns


@given(INT64)
def test_a_varint_field_is_protobufs(value: int) -> None:
    written = types_pb2.TaskLogEntry(revision=value).SerializeToString()
    assert written == (encode_fields((0x20, value)) if value else b"")
    assert encode_fields((0x20, None)) == b""


@given(st.text())
def test_bytes_are_written_with_their_length(content: str) -> None:
    written = types_pb2.TaskLogEntry(content=content).SerializeToString()
    assert written == (encode_fields((0x7A, content.encode())) if content else b"")
