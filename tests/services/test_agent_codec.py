"""Decoding of an agent's messages stops early if there is too much to decode."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded
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
