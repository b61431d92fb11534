"""The API of tomorrow is what the other tests take it for."""

from __future__ import annotations

import pytest

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, types_pb2
from tests.compat import tomorrow
from tests.support.fixtures.agent_stream import log_entry


@pytest.mark.parametrize(("message", "oneof"), tomorrow.NEW_CASES)
def test_a_new_case_reads_as_no_case_today(message: str, oneof: str) -> None:
    case = tomorrow.NEW_CASES[message, oneof]
    sent = tomorrow.make(message, **{case: {"text": "new"}})
    module = task_logs_pb2 if hasattr(task_logs_pb2, message) else task_agents_pb2

    today = tomorrow.as_today(sent, getattr(module, message))

    assert today.WhichOneof(oneof) is None
    assert tomorrow.seen_by_tomorrow(today) == sent


def test_every_message_in_a_message_has_the_new_field() -> None:
    append = task_agents_pb2.LogAppend(sequence=1, entries=[log_entry(0, "a"), log_entry(1, "b")])
    append.tail.content.pieces.add(text="x")

    sent = tomorrow.grown(append)

    assert sent.tomorrow
    assert all(entry.tomorrow for entry in sent.entries)
    assert sent.tail.tomorrow
    assert sent.tail.content.pieces[0].tomorrow
    today = tomorrow.as_today(sent, task_agents_pb2.LogAppend)
    assert [entry.content for entry in today.entries] == ["a", "b"]
    assert tomorrow.seen_by_tomorrow(today) == sent


def test_an_entrys_new_field_is_before_its_content() -> None:
    content = types_pb2.TaskLogEntry.DESCRIPTOR.fields_by_name["content"]
    numbers = [field.number for field in types_pb2.TaskLogEntry.DESCRIPTOR.fields]

    assert content.number == max(numbers)
    assert tomorrow.ENTRY_FIELD_NUMBER not in numbers
    assert content.number > tomorrow.ENTRY_FIELD_NUMBER


def test_every_enum_has_a_new_value() -> None:
    entry = tomorrow.make("TaskLogEntry", id=0, type="TASK_LOG_TYPE_TOMORROW")

    assert tomorrow.as_today(entry, types_pb2.TaskLogEntry).type == tomorrow.NEW_NUMBER
