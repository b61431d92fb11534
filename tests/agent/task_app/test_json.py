from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.agent.task_app import json as wire
from tasklogs.agent.task_app import rfc3339
from tasklogs.agent.task_app.faults import Fault, TaskAppError, one_line
from tasklogs.log.entry import Entry, EntryType, Time
from tests.support.fakes.task_app import rfc3339 as as_go_writes


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("2025-03-01T12:00:00.123456789Z", 1740830400, 123456789),
        ("2025-03-01T12:00:00.1Z", 1740830400, 100000000),
        ("2025-03-01T13:00:00.000000001+01:00", 1740830400, 1),
        ("2025-03-01T04:30:00-07:30", 1740830400, 0),
        ("1969-12-31T23:59:59.5Z", -1, 500000000),
        ("2016-12-31T23:59:60Z", 1483228800, 0),
    ],
)
def test_a_time_keeps_its_nanoseconds(text: str, seconds: int, nanos: int) -> None:
    assert rfc3339.parse(text) == Time(seconds, nanos)


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_every_time_that_go_writes_is_read(nanoseconds: int) -> None:
    assert rfc3339.parse(as_go_writes(nanoseconds)) == Time(*divmod(nanoseconds, 10**9))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2025-03-01",
        "2025-13-01T00:00:00Z",
        "2025-03-01T12:00:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "2025-03-01T12:00:00." + "1" * 100 + "Z",
        "٢٠٢٥-03-01T12:00:00Z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is never shown)
        rfc3339.parse(text)


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
def test_nonsense_is_named_without_what_it_held(data: bytes, fault: Fault, said: str) -> None:
    with pytest.raises(TaskAppError, match=said) as caught:
        wire.messages(data)
    assert caught.value.fault is fault
    assert "hi" not in str(caught.value).split()
    assert "robot" not in str(caught.value)


@given(st.text(max_size=600))
def test_a_reason_is_one_short_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert len(line.splitlines()) <= 1
