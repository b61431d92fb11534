"""What single lines of Claude Code's files say: those that the recorded runs do not have."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.claude_code import ClaudeCode
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.log.entry import EntryType, Names, Time
from tests.agent.sources.test_jsonl import agent_on, contents, epoch_of, token_of
from tests.support.fixtures.server import MakeServer, Server


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


def source(*, thoughts: bool = False) -> ClaudeCode:
    options = SourceOptions(transcript=Path("s.jsonl"), thoughts=thoughts)
    return ClaudeCode(options, Settings(), lambda: 0.0)


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "user", "uuid": "u1", "message": {"role": "user", "content": content}, **fields}


def assistant(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    message = {"id": "m1", "role": "assistant", "model": "m", "content": list(blocks)}
    return {"type": "assistant", "uuid": "u2", "message": message, **fields}


def said(line: Any, **options: Any) -> list[Found]:
    return list(source(**options).parse(json.dumps(line).encode()))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (user("hidden", isMeta=True), "meta"),
        (user("a sub-agent's", isSidechain=True), "sidechain"),
        (user("<local-command-stdout>done</local-command-stdout>"), "command_output"),
        (user([{"type": "image", "source": {}}]), "user.image"),
        (assistant({"type": "thinking", "thinking": "hm"}), "assistant.thinking"),
        ({"type": "attachment", "rendered": []}, "attachment"),
        ({"type": "a type of tomorrow", "message": {"content": "x"}}, "a type of tomorrow"),
        ({"message": {"content": "no type"}}, "None"),
        ([1, 2], "no_object"),
    ],
)
def test_what_is_not_said_is_left_out(line: Any, kind: str) -> None:
    assert said(line) == [LeftOut(kind)]


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_json_is_left_out(line: bytes) -> None:
    assert list(source().parse(line)) == [LeftOut("no_json")]


@pytest.mark.parametrize(
    "line",
    [
        user(None),
        user(7),
        {"type": "user", "message": "text"},
        {"type": "assistant"},
        {"type": "assistant", "message": {"content": None}},
    ],
)
def test_a_message_without_content_says_nothing(line: Any) -> None:
    assert said(line) == []


def test_a_line_of_another_form_than_expected_raises_nothing() -> None:
    odd: list[Any] = [None, 1, "x", [], {}, {"type": None}, {"type": "tool_use"}]
    for block in odd:
        assert all(isinstance(found, LeftOut) for found in said(assistant(block)))
        assert all(isinstance(found, LeftOut) for found in said(user([block])))


def test_thoughts_are_sent_on_demand() -> None:
    line = assistant({"type": "thinking", "thinking": "hm"}, timestamp="2026-11-30T00:00:01.5Z")
    time = Time(1795996801, 500_000_000)
    assert said(line, thoughts=True) == [Record(EntryType.THOUGHT, "hm", time, Names("m1/0"))]


def test_a_result_has_the_name_of_its_call_and_all_its_texts() -> None:
    read = source()
    call = assistant({"type": "tool_use", "id": "c1", "name": "Bash", "input": {"a": "漢"}})
    parts = [{"type": "text", "text": "one"}, {"type": "image"}]
    result = user([{"type": "tool_result", "tool_use_id": "c1", "content": parts}])
    found = [one for line in (call, result) for one in read.parse(json.dumps(line).encode())]
    assert found == [
        Record(EntryType.TOOL_CALL, '{"a": "漢"}', None, Names("m1/0", "Bash", "c1")),
        Record(EntryType.TOOL_RESULT, "one\n[image]", None, Names("u1", "Bash", "c1")),
    ]


def test_the_blocks_of_a_message_have_different_ids_over_several_lines() -> None:
    lines = [assistant({"type": "text", "text": str(at)}, apiBlockIndex=at) for at in range(3)]
    ids = [found.names.source_id for line in lines for found in said(line)]  # type: ignore[union-attr]
    assert ids == ["m1/0", "m1/1", "m1/2"]


def test_a_command_of_the_user_is_a_notice() -> None:
    command = "<command-name>/model</command-name>\n<command-args>opus</command-args>"
    assert said(user(command)) == [Record(EntryType.NOTICE, "/model opus", None, Names("u1"))]
    quoted = "What does <command-name>/x</command-name> mean?"
    assert said(user(quoted)) == [Record(EntryType.INPUT, quoted, None, Names("u1"))]


def test_sub_agents_have_files_of_their_own() -> None:
    read = source()
    assert read.session_of(Path("p/abc.jsonl")) == "abc"
    assert read.session_of(Path("p/abc/subagents/def.jsonl")) is None
    assert read.session_of(Path("p/agent-1.jsonl")) is None
    assert read.session_of(Path("p/notes.txt")) is None


def lines(name: str, *contents: str) -> str:
    return "".join(
        json.dumps(user(text, uuid=f"{name}{at}", timestamp=f"2026-11-30T12:00:{at:02}Z")) + "\n"
        for at, text in enumerate(contents)
    )


async def test_a_file_with_another_suffix_is_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "session.log"
    path.write_text(lines("a", "one"))
    async with agent_on(server, await token_of(server), path, source="claude-code"):
        assert await contents(server) == ["one"]


async def test_sessions_that_came_while_no_agent_ran_are_read_also_if_the_old_one_is_gone(
    server: Server, tmp_path: Path
) -> None:
    token = await token_of(server)
    (tmp_path / "a.jsonl").write_text(lines("a", "one"))
    async with agent_on(server, token, tmp_path, source="claude-code"):
        assert await contents(server) == ["one"]
    (tmp_path / "a.jsonl").unlink()
    for at, name in enumerate("bc"):
        (tmp_path / f"{name}.jsonl").write_text(lines(name, name))
        os.utime(tmp_path / f"{name}.jsonl", (2e9 + at, 2e9 + at))
    async with agent_on(server, token, tmp_path, source="claude-code"):
        assert await contents(server) == ["c"]
        assert [await contents(server, epoch) for epoch in (1, 2)] == [["one"], ["b"]]


async def test_a_session_that_came_and_ended_before_the_old_one_went_on_is_read_after_it(
    server: Server, tmp_path: Path
) -> None:
    token = await token_of(server)
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(lines("old", "one", "two"))
    async with agent_on(server, token, tmp_path, source="claude-code"):
        assert await contents(server) == ["one", "two"]
    new.write_text(lines("new", "", "", "", "new")[len(lines("new", "", "", "")) :])
    old.write_text(lines("old", "one", "two", "three", "four", "five"))
    os.utime(new, (2e9, 2e9))
    os.utime(old, (2e9 + 1, 2e9 + 1))
    async with agent_on(server, token, tmp_path, source="claude-code"):
        assert await contents(server) == ["new"]
        assert await contents(server, 1) == ["one", "two", "three", "four", "five"]
        assert await epoch_of(server) == 2


@pytest.mark.parametrize("own_id", [None, 7, []])
def test_an_id_that_is_no_text_is_no_id(own_id: Any) -> None:
    block = {"type": "text", "text": "x"}
    of_user = user([block, block], uuid=own_id)
    of_model = assistant(block)
    of_model["message"]["id"] = own_id
    for line in (of_user, of_model):
        found = said(line)
        assert [one.names for one in found if isinstance(one, Record)] == [Names()] * len(found)
