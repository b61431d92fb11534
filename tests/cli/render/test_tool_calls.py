"""Results of tools, and the calls that they belong to."""

from __future__ import annotations

from tasklogs.cli.render.tool_calls import ToolCalls
from tasklogs.enums import TaskLogType

CALL, RESULT, OUTPUT = TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT, TaskLogType.OUTPUT


def calls_of(*entries: tuple[int, TaskLogType, str]) -> list[int | None]:
    calls = ToolCalls()
    return [calls.call_of(*one) for one in entries]


def test_a_result_right_after_its_call_needs_no_name_of_it() -> None:
    assert calls_of((1, CALL, "a"), (2, RESULT, "a")) == [None, None]


def test_results_of_calls_at_once_name_their_calls() -> None:
    assert calls_of((1, CALL, "a"), (2, CALL, "b"), (4, RESULT, "a"), (5, RESULT, "b")) == [
        *(None, None),
        *(1, 2),
    ]


def test_what_is_between_a_call_and_its_result_makes_the_result_name_it() -> None:
    assert calls_of((1, CALL, "a"), (2, OUTPUT, ""), (3, RESULT, "a")) == [None, None, 1]


def test_a_result_without_a_call_that_was_printed_names_none() -> None:
    assert calls_of((3, RESULT, "a"), (4, RESULT, ""), (5, OUTPUT, "a")) == [None] * 3


def test_calls_of_an_earlier_conversation_and_too_many_calls_are_forgotten() -> None:
    calls = ToolCalls()
    for id_ in range(1001):
        calls.call_of(id_, CALL, str(id_))
    assert calls.call_of(2000, RESULT, "0") is None
    assert calls.call_of(2001, RESULT, "1") == 1
    calls.forget()
    assert calls.call_of(2002, RESULT, "1") is None
