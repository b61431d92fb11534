"""What an agent's messages decode to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.entry import NO_NAMES, EntryType, Names, Time
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded, Unsupported
from tasklogs_server.ingest import messages
from tasklogs_server.services import agent_codec as codec

EMPTY = types.TaskLogEntry()


def test_an_append_with_too_many_entries_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(LimitExceeded, match="at most 50000 entries"):
        codec.append_at_once(pb.LogAppend(sequence=1, entries=[EMPTY] * 50_001))


def test_only_the_first_of_many_bad_entries_are_named() -> None:
    with pytest.raises(InvalidFields) as refused:
        codec.append_at_once(pb.LogAppend(sequence=1, entries=[EMPTY] * 50_000))
    assert 1 <= len(refused.value.violations) < 30


NEXT_TYPE: Any = max(types.TaskLogType.values()) + 1


def test_an_entry_of_an_unknown_type_is_not_supported() -> None:
    """It is no bad field: a later version of the protos may have the type."""
    entry = types.TaskLogEntry(id=0, type=NEXT_TYPE)
    with pytest.raises(Unsupported, match=f"does not support entries of type {NEXT_TYPE}"):
        codec.append_at_once(pb.LogAppend(sequence=1, open_epoch=True, entries=[entry]))


def test_an_entry_has_its_names_up_to_255_bytes_each() -> None:
    named = types.TaskLogEntry(
        id=0, type=types.TASK_LOG_TYPE_TOOL_CALL, source_id="a\0", name="€" * 85, call_id="c" * 255
    )
    named.time.seconds = 1
    (entry,) = codec.append_at_once(pb.LogAppend(sequence=1, entries=[named])).entries
    assert entry.names == Names("a\0", "€" * 85, "c" * 255)
    assert entry.type is EntryType.TOOL_CALL


def test_an_entry_without_names_has_the_shared_ones() -> None:
    """A long log has many of them."""
    plain = types.TaskLogEntry(id=0, type=types.TASK_LOG_TYPE_OUTPUT)
    plain.time.seconds = 1
    (entry,) = codec.append_at_once(pb.LogAppend(sequence=1, entries=[plain])).entries
    assert entry.names is NO_NAMES


@pytest.mark.parametrize("field", Names._fields)
@pytest.mark.parametrize("text", ["x" * 256, "€" * 86, "𝄞" * 64, "x" * 1_000_000], ids=len)
def test_a_name_of_more_than_255_bytes_is_refused(field: str, text: str) -> None:
    long: Any = types.TaskLogEntry(id=0, type=types.TASK_LOG_TYPE_OUTPUT)
    long.time.seconds = 1
    setattr(long, field, text)
    with pytest.raises(InvalidFields) as refused:
        codec.append_at_once(pb.LogAppend(sequence=1, entries=[long]))
    (violation,) = refused.value.violations
    assert violation.field == f"append.entries.{field}"
    assert "255 bytes" in violation.description


# Field 31, with a message in it.
LATER = b"\xfa\x01\x02\x08\x01"


@pytest.mark.parametrize(
    "append",
    [
        pb.LogAppend(sequence=1),
        pb.LogAppend(sequence=1, waited_ms=5),
        pb.LogAppend.FromString(pb.LogAppend(sequence=1).SerializeToString() + LATER),
    ],
    ids=["nothing", "only waited_ms", "only an unknown part"],
)
def test_an_append_without_a_known_part_is_not_supported(append: pb.LogAppend) -> None:
    with pytest.raises(Unsupported, match="appends without a part that it knows"):
        codec.append_at_once(append)


def test_an_unknown_field_beside_a_known_part_is_dropped() -> None:
    """Later versions may add information to a message that a server can do without."""
    opening = pb.LogAppend(sequence=1, open_epoch=True)
    append = codec.append_at_once(pb.LogAppend.FromString(opening.SerializeToString() + LATER))
    assert (append.sequence, append.open_epoch) == (1, True)


def test_a_hello_may_name_any_number_of_features() -> None:
    """This server needs none of them."""
    plain = codec.hello(pb.AgentMessage(hello=pb.Hello(task_app="x")))
    named = pb.Hello(task_app="x", features=["entry_names", "time_travel", "", "x" * 3_000_000])
    assert codec.hello(pb.AgentMessage(hello=named)) == plain


def test_welcome_names_the_features_and_the_types_and_the_names_of_the_tail() -> None:
    tail = StoredTail(3, EntryType.TOOL_CALL, Time(1, 2), 0, bytes(32), 0, Names("m", "bash", "c"))
    said = messages.Welcome(1, messages.Limits(1, 2, 3), 4, Position(1, 1, bytes(32), tail))
    welcome = codec.welcome(said).welcome
    assert list(welcome.features) == [
        "content_delta_pieces",
        "entry_names",
        "compressed_messages",
    ]
    assert list(welcome.entry_types) == types.TaskLogType.values()[1:]
    assert (welcome.tail.source_id, welcome.tail.name, welcome.tail.call_id) == tail.names


def test_welcome_has_a_tail_whose_type_a_later_version_stored() -> None:
    tail = StoredTail(3, 99, Time(1, 2), 0, bytes(32))
    said = messages.Welcome(1, messages.Limits(1, 2, 3), 4, Position(1, 1, bytes(32), tail))
    assert codec.welcome(said).welcome.tail.type == 99
