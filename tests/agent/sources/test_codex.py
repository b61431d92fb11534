"""What single lines of Codex' files say: those that the recorded runs do not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.codex import Codex
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.log.entry import EntryType, Names


def source(*, thoughts: bool = False) -> Codex:
    options = SourceOptions(transcript=Path("s.jsonl"), thoughts=thoughts)
    return Codex(options, Settings(), lambda: 0.0)


def item(**fields: Any) -> dict[str, Any]:
    return {"type": "event_msg", "payload": {"type": "item_completed", "item": fields}}


def response(**fields: Any) -> dict[str, Any]:
    return {"type": "response_item", "payload": fields}


def said(*lines: Any, thoughts: bool = False) -> list[Found]:
    read = source(thoughts=thoughts)
    return [found for line in lines for found in read.parse(json.dumps(line).encode())]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (response(type="message", role="user", content=[]), "response_item.message"),
        (response(type="reasoning", encrypted_content="x"), "response_item.reasoning"),
        (item(type="CommandExecution", id="c1"), "item.CommandExecution"),
        (item(type="Reasoning", id="r1", summary_text=["hm"]), "item.Reasoning"),
        (item(), "item"),
        ({"type": "event_msg", "payload": {"type": "item_completed", "item": 3}}, "item"),
        ({"type": "session_meta", "payload": {}}, "session_meta"),
        ({"type": "tomorrow", "payload": [1]}, "tomorrow"),
        ({}, "None"),
        ("text", "no_object"),
    ],
)
def test_what_is_not_said_is_left_out(line: Any, kind: str) -> None:
    assert said(line) == [LeftOut(kind)]


def test_thoughts_are_sent_on_demand() -> None:
    line = item(type="Reasoning", id="r1", summary_text=["one", "two"])
    assert said(line, thoughts=True) == [
        Record(EntryType.THOUGHT, "one\ntwo", None, Names("r1")),
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("function_call", {"arguments": '{"a": 1}'}, '{"a": 1}'),
        ("custom_tool_call", {"input": "a patch"}, "a patch"),
        ("local_shell_call", {"action": {"command": ["ls"]}}, '{"command": ["ls"]}'),
    ],
)
def test_each_kind_of_call_is_a_call(kind: str, fields: dict[str, Any], text: str) -> None:
    call = response(type=kind, id="f1", call_id="c1", name="tool", **fields)
    assert said(call) == [Record(EntryType.TOOL_CALL, text, None, Names("f1", "tool", "c1"))]


def test_a_result_has_the_name_of_its_call_and_names_what_is_no_text() -> None:
    call = response(type="function_call", id="f1", call_id="c1", name="view", arguments="{}")
    output = [{"type": "input_text", "text": "one"}, {"type": "input_image"}]
    result = response(type="function_call_output", id="o1", call_id="c1", output=output)
    found = said(call, result)[1]
    names = Names("o1", "view", "c1")
    assert found == Record(EntryType.TOOL_RESULT, "one\n[input_image]", None, names)


@pytest.mark.parametrize("own_id", [None, 7, []])
def test_an_id_that_is_no_text_is_no_id(own_id: Any) -> None:
    message = item(type="UserMessage", id=own_id, content=[{"text": "x"}])
    call = response(type="function_call", id=own_id, call_id=own_id, name=own_id, arguments="{}")
    result = response(type="function_call_output", id=own_id, call_id=own_id, output="x")
    found = said(message, call, result)
    names = [one.names for one in found if isinstance(one, Record)]
    assert [(one.source_id, one.call_id) for one in names] == [("", "")] * 3
    assert [one.name for one in names] == ["", "local_shell", ""]
