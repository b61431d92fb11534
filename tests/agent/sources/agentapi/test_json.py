"""AgentAPI's JSON becomes entries; errors in it are reported without its content."""

from __future__ import annotations

import json

import pytest

from tasklogs.agent.sources.agentapi import json as wire
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.log.entry import Entry, EntryType, Time


def message(**changes: object) -> dict[str, object]:
    return {
        "id": 0,
        "content": "hi",
        "role": "agent",
        "time": "2025-03-01T12:00:00.5Z",
        **changes,
    }


def body(*items: object) -> bytes:
    return json.dumps({"$schema": "http://localhost/x.json", "messages": list(items)}).encode()


def test_a_list_of_messages_becomes_entries() -> None:
    entries = wire.messages(body(message(), message(id=2, role="user", content="ü\x00\ud800")))
    moment = Time(1740830400, 500000000)
    assert entries == [
        Entry(0, EntryType.OUTPUT, moment, b"hi"),
        Entry(2, EntryType.INPUT, moment, "ü\x00\ufffd".encode()),
    ]


def test_a_message_past_1_mib_loses_its_front() -> None:
    (entry,) = wire.messages(body(message(content="x" * (1024 * 1024 + 1))))
    assert entry.dropped_bytes == 128 * 1024
    assert len(entry.content) == 1024 * 1024 + 1 - 128 * 1024


@pytest.mark.parametrize(
    ("data", "fault", "said"),
    [
        (b"{", Fault.NONSENSE, "not JSON"),
        (b"\xff", Fault.NONSENSE, "not JSON"),
        (b"[" * 100_000, Fault.NONSENSE, "not JSON"),
        (b"[]", Fault.NONSENSE, "not a JSON object"),
        (b"{}", Fault.NONSENSE, "no list of messages"),
        (body(1), Fault.NONSENSE, "not an object"),
        (body(message(role="robot")), Fault.NONSENSE, "message 0 has an unknown role"),
        (body(message(role=None)), Fault.NONSENSE, "unknown role"),
        (body(message(role="")), Fault.TORN, "empty role"),
        (body(message(id=-1)), Fault.NONSENSE, "valid id"),
        (body(message(id=2**31)), Fault.NONSENSE, "valid id"),
        (body(message(id=True)), Fault.NONSENSE, "valid id"),
        (body(message(id="0")), Fault.NONSENSE, "valid id"),
        (body(message(content=None)), Fault.NONSENSE, "lacks its content"),
        (body(message(time="yesterday")), Fault.NONSENSE, "invalid time"),
        (body(message(id=1), message(id=1)), Fault.NONSENSE, "message 1 follows message 1"),
    ],
)
def test_invalid_json_is_reported_without_its_content(data: bytes, fault: Fault, said: str) -> None:
    with pytest.raises(TaskAppError, match=said) as caught:
        wire.messages(data)
    assert caught.value.fault is fault
    assert "hi" not in str(caught.value).split()
    assert "robot" not in str(caught.value)
