"""Aider writes its chat history, an agent reads it, a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.aider import Aider, default_place
from tasklogs.agent.sources.options import SourceOptions
from tests.agent.sources.test_aider_history import Chat
from tests.agent.sources.test_jsonl import agent_on, contents, entries, epoch_of, token_of
from tests.support.fixtures.server import MakeServer, Server


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(tmp_path)


async def test_an_answer_that_grew_while_no_agent_ran_goes_on(server: Server, chat: Chat) -> None:
    token = await token_of(server)
    chat.start()
    chat.say("Why?")
    chat.answer("Because")
    async with agent_on(server, token, chat.path, source="aider"):
        assert (await contents(server))[1:] == ["Why?", "Because"]
        [*_, before] = await entries(server)
    chat.answer("it is.")
    for _ in range(2):
        async with agent_on(server, token, chat.path, source="aider"):
            assert (await contents(server))[1:] == ["Why?", "Because\n\n\nit is."]
            [*_, after] = await entries(server)
            assert after.time > before.time
    chat.say("And?")
    async with agent_on(server, token, chat.path, source="aider"):
        assert (await contents(server))[1:] == ["Why?", "Because\n\n\nit is.", "And?"]
    assert await epoch_of(server) == 1


async def test_an_answer_that_grows_while_an_agent_runs_is_one_entry(
    server: Server, chat: Chat
) -> None:
    token = await token_of(server)
    chat.start()
    chat.say("Why?")
    async with agent_on(server, token, chat.path, source="aider"):
        for number in range(20):
            chat.answer(f"{number}")
            assert len(await contents(server)) == 3
        chat.notice("Tokens")
        answer = "\n\n\n".join(map(str, range(20)))
        assert (await contents(server))[1:] == ["Why?", answer, "Tokens"]
    async with agent_on(server, token, chat.path, source="aider"):
        assert (await contents(server))[1:] == ["Why?", answer, "Tokens"]
    assert await epoch_of(server) == 1


async def test_conversations_that_are_alike_are_not_taken_for_each_other(
    server: Server, chat: Chat
) -> None:
    token = await token_of(server)
    for second in range(3):
        chat.start(second=second)
        chat.say("Why?")
        async with agent_on(server, token, chat.path, source="aider"):
            assert (await contents(server))[1:] == ["Why?"]
        chat.answer("Because")
        async with agent_on(server, token, chat.path, source="aider"):
            assert (await contents(server))[1:] == ["Why?", "Because"]
        assert await epoch_of(server) == second + 1


async def test_what_is_redacted_of_an_answer_may_have_many_lines(
    server: Server, chat: Chat
) -> None:
    token = await token_of(server)
    chat.start()
    chat.say("Key?")
    chat.answer("It is\nBEGIN KEY\n\nabc\nEND KEY\nthere.")
    options = {"source": "aider", "redact": ["(?s)BEGIN KEY.*END KEY"]}
    async with agent_on(server, token, chat.path, **options):
        assert (await contents(server))[2] == "It is\n[redacted]\nthere."


async def test_a_directory_that_comes_later_is_read(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "work"
    async with agent_on(server, await token_of(server), directory, source="aider"):
        directory.mkdir()
        chat = Chat(directory)
        chat.start()
        chat.say("Why?")
        assert (await contents(server))[1:] == ["Why?"]


def test_it_reads_where_aider_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    assert default_place(inner) == inner / ".aider.chat.history.md"
    (tmp_path / "repository" / ".git").mkdir()
    at_root = tmp_path / "repository" / ".aider.chat.history.md"
    assert default_place(inner) == at_root
    monkeypatch.chdir(inner)
    assert Aider(SourceOptions(), Settings(), lambda: 0.0).place == str(at_root)
    given = SourceOptions(transcript=inner)
    assert Aider(given, Settings(), lambda: 0.0).place == str(inner / ".aider.chat.history.md")


@pytest.mark.parametrize("name", ["chat.md", "other.txt"])
def test_another_name_of_the_file_may_be_given(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.txt").touch()
    options = SourceOptions(transcript=tmp_path / name)
    assert Aider(options, Settings(), lambda: 0.0).place == str(tmp_path / name)
