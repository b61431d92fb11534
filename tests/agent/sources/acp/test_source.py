"""What a stream says, for what the recorded runs do not have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasklogs.agent.sources.record import LeftOut, Record
from tasklogs.log.entry import EntryType, Names
from tests.agent.sources.acp.stream import (
    chunk,
    entries,
    failure,
    found,
    left_out,
    load,
    new_session,
    prompt,
    request,
    result,
    source,
    text,
    turn,
    update,
)

INPUT, OUTPUT, NOTICE = EntryType.INPUT, EntryType.OUTPUT, EntryType.NOTICE
CALL, RESULT, THOUGHT = EntryType.TOOL_CALL, EntryType.TOOL_RESULT, EntryType.THOUGHT


def test_chunks_without_an_id_are_one_entry_until_the_kind_changes() -> None:
    said = [chunk("a"), update("usage_update"), chunk("b"), chunk("?", of="agent_thought")]
    said += [chunk("c"), chunk("d")]
    assert entries(said) == [[(OUTPUT, "ab"), (OUTPUT, "cd")]]
    assert entries(said, source(thoughts=True)) == [
        [(OUTPUT, "ab"), (THOUGHT, "?"), (OUTPUT, "cd")],
    ]


def test_chunks_join_by_their_id() -> None:
    said = [chunk("a", "m1"), chunk("b", "m1"), chunk("c", "m2"), chunk("d")]
    assert entries(said) == [[(OUTPUT, "ab"), (OUTPUT, "c"), (OUTPUT, "d")]]
    assert [one for one in found(said) if isinstance(one, Record)][:2] == [
        Record(OUTPUT, "a", None, Names("m1")),
        Record(OUTPUT, "b", None, Names("m1"), extends=True),
    ]


def test_a_message_ends_with_its_turn() -> None:
    said = [*turn(1, "q", "same"), *turn(2, "q", "same"), chunk("after"), prompt(3, "r")]
    assert entries(said)[0][2:] == [
        (INPUT, "q"),
        (OUTPUT, "same"),
        (OUTPUT, "after"),
        (INPUT, "r"),
    ]


def test_what_a_prompt_has_besides_text_is_named() -> None:
    link = {"type": "resource_link", "uri": "file:///a.py", "name": "a.py"}
    inner = {"type": "resource", "resource": {"uri": "file:///b", "text": "secret"}}
    said = prompt(1, "look at ", link, " and ", inner, {"type": "image", "data": "AAAA"})
    [[(_, content)]] = entries([said])
    assert content == "look at [a.py](file:///a.py) and [resource](file:///b)[image]"


def test_a_chunk_that_repeats_the_prompt_is_no_other_input() -> None:
    said = [prompt(1, "hello"), chunk("hello", of="user_message"), chunk("hi")]
    assert entries(said) == [[(INPUT, "hello"), (OUTPUT, "hi")]]
    assert left_out(said) == ["echo"]


@pytest.mark.parametrize(
    ("answer", "notice"),
    [
        (result(1, stopReason="end_turn"), None),
        (result(1, stopReason="cancelled"), "The turn ended: cancelled"),
        (result(1, stopReason="refusal"), "The turn ended: refusal"),
        (failure(1, "no credit"), "The turn failed: no credit"),
    ],
    ids=["end_turn", "cancelled", "refusal", "error"],
)
def test_why_a_turn_ended_is_a_notice(answer: dict[str, Any], notice: str | None) -> None:
    wanted = [(INPUT, "q"), (OUTPUT, "a"), *([] if notice is None else [(NOTICE, notice)])]
    assert entries([prompt(1, "q"), chunk("a"), answer]) == [wanted]


def test_a_call_is_an_entry_once_its_arguments_are_known() -> None:
    said = [
        update("tool_call", toolCallId="a", title="Read", status="pending", rawInput={}),
        update("tool_call", toolCallId="b", title="Find", kind="search", status="pending"),
        update("tool_call_update", toolCallId="a", name="read", rawInput={"path": "x"}),
        update("tool_call_update", toolCallId="b", status="in_progress"),
        update("tool_call_update", toolCallId="b", status="failed", rawOutput={"code": 1}),
        update("tool_call_update", toolCallId="a", status="completed", rawOutput="text"),
        update("tool_call_update", toolCallId="a", status="completed", rawOutput="late"),
    ]
    assert list(found(said)) == [
        Record(CALL, '{"path": "x"}', None, Names("a", "read", "a")),
        Record(CALL, "Find", None, Names("b", "search", "b")),
        Record(RESULT, '{"code": 1}', None, Names("b/result", "search", "b")),
        Record(RESULT, "text", None, Names("a/result", "read", "a")),
        LeftOut("tool_call_update.late"),
    ]


def test_a_call_that_never_ran_is_an_entry_at_the_end_of_its_turn() -> None:
    call = update("tool_call", toolCallId="a", title="Read", status="pending")
    said = [prompt(1, "q"), call, result(1, stopReason="cancelled")]
    assert entries(said)[0][1:] == [(CALL, "Read"), (NOTICE, "The turn ended: cancelled")]


def test_what_a_tool_shows_is_its_result() -> None:
    shown = [
        {"type": "content", "content": text("two files")},
        {"type": "diff", "path": "a.py", "oldText": "x\ny", "newText": "z"},
        {"type": "terminal", "terminalId": "t"},
    ]
    said = [
        update("tool_call", toolCallId="a", title="Edit", content=shown),
        update("tool_call_update", toolCallId="a", status="completed", rawOutput={}),
    ]
    assert entries(said)[0][1:] == [(RESULT, "two files\n[diff](a.py)\n-x\n-y\n+z\n[terminal]")]


def ask(request_id: Any, call_id: str) -> dict[str, Any]:
    options = [
        {"optionId": "yes", "name": "Allow", "kind": "allow_once"},
        {"optionId": "no", "name": "Reject", "kind": "reject_once"},
    ]
    call = {"toolCallId": call_id, "title": f"Run {call_id}"}
    return request(
        request_id, "session/request_permission", sessionId="s1", toolCall=call, options=options
    )


def selected(request_id: Any, option: str) -> dict[str, Any]:
    return result(request_id, outcome={"outcome": "selected", "optionId": option})


def test_a_question_for_permission_is_a_notice_that_gets_the_answer() -> None:
    said = [prompt(0, "q"), ask(0, "a"), selected(0, "no"), result(0, stopReason="end_turn")]
    asked = [(INPUT, "q"), (CALL, "Run a"), (NOTICE, "Permission asked: Run a")]
    assert entries(said[:2]) == [asked]
    answered = (NOTICE, "Permission asked: Run a\nAnswer: Reject")
    assert entries(said) == [[*asked[:2], answered]]


def test_an_answer_after_other_entries_is_a_notice_of_its_own() -> None:
    cancelled = result(1, outcome={"outcome": "cancelled"})
    said = [ask(0, "a"), ask(1, "b"), selected(0, "yes"), cancelled]
    assert [content for kind, content in entries(said)[0] if kind is NOTICE] == [
        "Permission asked: Run a",
        "Permission asked: Run b",
        "Permission asked: Run a\nAnswer: Allow",
        "Permission asked: Run b\nAnswer: cancelled",
    ]


def test_requests_without_a_response_are_forgotten() -> None:
    read = source()
    asked = [prompt(n, "q") for n in range(1100)] + [prompt(7, "q")] * 10
    assert len(list(found(asked, read))) == 1110
    assert sum(map(len, read._unanswered.values())) < 1010


def test_both_sides_may_use_the_same_id() -> None:
    said = [prompt(2, "q"), request(2, "fs/read_text_file", sessionId="s1", path="/x")]
    said += [ask(2, "a"), selected(2, "yes"), result(2, content="file"), chunk("done")]
    said += [result(2, stopReason="cancelled")]
    assert entries(said)[0][-3:] == [
        (NOTICE, "Permission asked: Run a\nAnswer: Allow"),
        (OUTPUT, "done"),
        (NOTICE, "The turn ended: cancelled"),
    ]


def test_the_session_that_is_created_last_is_read() -> None:
    said = [*new_session(0), *turn(1, "one", "1"), *new_session(2, "s2"), *turn(3, "lost", "lost")]
    said += [prompt(4, "two", session="s2")]
    assert entries(said) == [[(INPUT, "one"), (OUTPUT, "1")], [(INPUT, "two")]]
    assert left_out(said).count("other_session") == 2


def test_a_stream_may_begin_in_a_session() -> None:
    said = [chunk("the end of an answer"), *turn(5, "q", "a"), *new_session(6, "s2")]
    assert entries(said)[0] == [(OUTPUT, "the end of an answer"), (INPUT, "q"), (OUTPUT, "a")]


def test_a_session_that_cannot_be_loaded_is_no_epoch() -> None:
    loading = [request(2, "session/load", sessionId="s2"), failure(2, "no such session")]
    said = [*new_session(0), *turn(1, "q", "a"), *loading, *turn(3, "r", "b")]
    assert len(entries(said)) == 1


def test_another_session_that_is_loaded_is_an_epoch_with_what_is_repeated() -> None:
    repeated = [chunk("old", of="user_message"), chunk("answer")]
    repeated = [{**one, "params": {**one["params"], "sessionId": "s2"}} for one in repeated]
    said = [*new_session(0), *turn(1, "q", "a"), *load(2, *repeated, session="s2")]
    assert entries(said) == [
        [(INPUT, "q"), (OUTPUT, "a")],
        [(INPUT, "old"), (OUTPUT, "answer")],
    ]


def test_a_resumed_session_goes_on() -> None:
    resumed = [request(2, "session/resume", sessionId="s1"), result(2)]
    said = [*new_session(0), *turn(1, "q", "a"), *resumed, *turn(3, "r", "b")]
    assert len(entries(said)) == 1


def test_a_compaction_and_a_notice_of_the_agent_are_notices() -> None:
    said = [
        update("compaction_summary_chunk", compactionId="c", content=text("so ")),
        update("compaction_summary_chunk", compactionId="c", content=text("far")),
        update("compaction_update", compactionId="c", status="completed", summary=[text("all")]),
        update("notice", severity="warning", title="Slow", description="The model is busy."),
    ]
    assert entries(said) == [[(NOTICE, "all"), (NOTICE, "Slow\nThe model is busy.")]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (update("plan", entries=[]), "plan"),
        (update("tomorrow"), "tomorrow"),
        (request(1, "initialize", protocolVersion=1), "initialize"),
        (request(1, "fs/write_text_file", sessionId="s1"), "fs/write_text_file"),
        ({"method": "session/cancel", "params": {"sessionId": "s1"}}, "session/cancel"),
        ({"method": "session/update", "params": 3}, "session/update"),
        (result(9), "response"),
        ({}, "message"),
        ([], "message"),
        ("text", "message"),
    ],
    ids=str,
)
def test_what_is_not_said_is_left_out(line: Any, kind: str) -> None:
    assert list(source().parse(json.dumps(line).encode())) == [LeftOut(kind)]


def test_a_line_that_is_no_json_is_left_out() -> None:
    assert list(source().parse(b"Starting...")) == [LeftOut("no_json")]


def test_with_redaction_a_message_is_sent_when_it_is_complete() -> None:
    read = source(redact=("sk-[a-z]{6}",))
    growing = [prompt(1, "q"), chunk("the key is sk-abc"), chunk("def.")]
    assert entries(growing, read) == [[(INPUT, "q")]]
    assert list(found([result(1, stopReason="end_turn")], read)) == [
        Record(OUTPUT, "the key is sk-abcdef."),
    ]


def test_with_redaction_the_last_message_is_sent_at_the_end() -> None:
    read = source(redact=("sk-[a-z]{6}",))
    assert not list(found([chunk("a"), chunk("b")], read))
    assert list(read.ended()) == [Record(OUTPUT, "ab")]
