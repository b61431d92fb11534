"""What lines of Gemini CLI's files say: those that the recorded runs do not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.gemini import Gemini
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.log.entry import EntryType, Names


def said(*lines: Any, thoughts: bool = False) -> list[Found]:
    options = SourceOptions(transcript=Path("s.jsonl"), thoughts=thoughts)
    read = Gemini(options, Settings(), lambda: 0.0)
    return [found for line in lines for found in read.parse(json.dumps(line).encode())]


def message(own_id: str, kind: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"id": own_id, "type": kind, "content": content, **fields}


ASKED = message("a", "user", [{"text": "Why?"}])
ANSWERED = message("b", "gemini", "Because.")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (message("e", "error", "It failed."), "message.error"),
        (message("c", "user", [{"text": "<session_context>x"}]), "context"),
        ({"$set": {"lastUpdated": "x"}}, "set"),
        ({"$set": 3}, "set"),
        ({"sessionId": "x"}, "session"),
        ({"id": 3, "type": "user"}, "session"),
        ([], "no_object"),
    ],
)
def test_what_is_not_said_is_left_out(line: Any, kind: str) -> None:
    assert said(line) == [LeftOut(kind)]


@pytest.mark.parametrize("content", [None, 3, [3, None], [{"text": None}], [{"functionCall": 3}]])
def test_content_of_another_form_raises_nothing(content: Any) -> None:
    for kind in ("user", "gemini"):
        said(message("a", kind, content, toolCalls=[3, {}], thoughts=[3, {}]), thoughts=True)


def test_a_list_that_has_what_is_known_says_nothing() -> None:
    listed = [
        message("a", "user", [{"text": "Why?"}]),
        message("b", "gemini", [{"text": "Because."}]),
    ]
    assert len(said(ASKED, ANSWERED, {"$set": {"messages": listed}})) == 2


def test_a_list_that_lacks_something_is_a_shorter_history() -> None:
    shorter = [message("x", "user", [{"text": "A summary."}])]
    later = message("y", "gemini", "More.")
    found = said(ASKED, ANSWERED, {"$set": {"messages": shorter}}, later)[2:]
    assert [one.type for one in found if isinstance(one, Record)] == [
        EntryType.NOTICE,
        EntryType.OUTPUT,
    ]


def test_the_last_message_again_replaces_it_and_an_older_one_does_not() -> None:
    longer = message("b", "gemini", "Because of it.")
    other = message("a", "user", [{"text": "Why not?"}])
    found = said(ASKED, ANSWERED, longer, other)
    assert found[2:] == [
        Record(EntryType.OUTPUT, "Because of it.", None, Names("b"), replaces=True)
    ]


def test_thoughts_are_sent_on_demand() -> None:
    line = message("b", "gemini", "", thoughts=[{"subject": "S", "description": "D"}])
    assert said(line) == []
    assert said(line, thoughts=True) == [
        Record(EntryType.THOUGHT, "S\nD", None, Names("b/thoughts"))
    ]


def test_messages_without_an_id_are_not_versions_of_each_other() -> None:
    listed = [{"type": "user", "content": "one"}, {"type": "user", "content": "two"}]
    assert said({"$set": {"messages": listed}}) == [LeftOut("message.no_id")] * 2
