"""What an agent's messages decode to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded, Unsupported
from tasklogs_server.services import agent_codec as codec

EMPTY = types.TaskLogEntry()


def test_an_append_with_too_many_entries_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(LimitExceeded, match="at most 50000 entries"):
        codec.append(pb.LogAppend(sequence=1, entries=[EMPTY] * 50_001))


def test_only_the_first_of_many_bad_entries_are_named() -> None:
    with pytest.raises(InvalidFields) as refused:
        codec.append(pb.LogAppend(sequence=1, entries=[EMPTY] * 50_000))
    assert 1 <= len(refused.value.violations) < 30


def test_only_the_first_of_many_bad_messages_are_named() -> None:
    listed = Value(list_value=ListValue(values=[Value()] * 100_000))
    request = pb.UploadLogSnapshotRequest(
        format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=Struct(fields={"messages": listed})
    )
    with pytest.raises(InvalidFields) as refused:
        codec.snapshot_entries(request)
    assert 1 <= len(refused.value.violations) < 30


NEXT_TYPE: Any = max(types.TaskLogType.values()) + 1


def test_an_entry_of_an_unknown_type_is_not_supported() -> None:
    """It is no bad field: a later version of the protos may have the type."""
    entry = types.TaskLogEntry(id=0, type=NEXT_TYPE)
    with pytest.raises(Unsupported, match=f"does not support entries of type {NEXT_TYPE}"):
        codec.append(pb.LogAppend(sequence=1, open_epoch=True, entries=[entry]))
