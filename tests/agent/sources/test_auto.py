"""Which source `--source auto` chooses."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources import session_transcript
from tasklogs.agent.sources.auto import chosen_source
from tasklogs.agent.sources.options import AUTO, SourceOptions, UnusableSource
from tests.agent.conftest import FAST, until
from tests.support.fakes.http_server import Response
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port


class Machine:
    """A home and a directory in which agents have run."""

    def __init__(self, root: Path) -> None:
        self.home, self.work = root / "home", root / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.agentapi_url = f"http://127.0.0.1:{lasting_port()}"

    async def choose(self, settings: Settings = FAST) -> str:
        options = SourceOptions(AUTO, self.agentapi_url)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await chosen_source(options, settings, lambda: 0.0)

    def claude_code(self, directory: Path, at: int, name: str = "a") -> None:
        lines = [{"type": "queue-operation"}, {"type": "user", "cwd": str(directory)}]
        self._lines(f".claude/projects/-work/{name}.jsonl", lines, at)

    def codex(self, directory: Path, at: int) -> None:
        lines = [{"type": "session_meta", "payload": {"cwd": str(directory)}}]
        self._lines(".codex/sessions/2026/12/01/rollout-1.jsonl", lines, at)

    def gemini(self, directory: Path, at: int) -> None:
        self._lines(".gemini/tmp/work/chats/session-1-a.jsonl", [{"sessionId": "a"}], at)
        (self.home / ".gemini/tmp/work/.project_root").write_text(str(directory))

    def opencode(self, directory: Path, at: int) -> None:
        path = self.home / ".local/share/opencode/opencode.db"
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE session (id, parent_id, directory, time_updated)")
            values = str(directory), at * 1000
            connection.execute("INSERT INTO session VALUES ('s', NULL, ?, ?)", values)

    def aider(self, directory: Path, at: int) -> None:
        directory.mkdir(exist_ok=True)
        path = directory / ".aider.chat.history.md"
        path.touch()
        os.utime(path, (at, at))

    def _lines(self, name: str, lines: Sequence[object], at: int) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.utime(path, (at, at))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(made.work)
    return made


@pytest.fixture
async def app(machine: Machine) -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp() as running:
        machine.agentapi_url = running.url
        yield running


AGENTS: dict[str, Callable[[Machine, Path, int], None]] = {
    "claude-code": Machine.claude_code,
    "codex": Machine.codex,
    "gemini": Machine.gemini,
    "opencode": Machine.opencode,
    "aider": Machine.aider,
}


@pytest.mark.parametrize("name", AGENTS)
async def test_the_agent_whose_transcript_changed_last_is_chosen(
    machine: Machine, name: str
) -> None:
    for other, write in AGENTS.items():
        write(machine, machine.work, 2000 if other == name else 1000)
    with structlog.testing.capture_logs() as logged:
        assert await machine.choose() == name
    [event] = logged
    assert event["event"] == "source.chosen"
    assert event["source"] == name


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "aider"])
async def test_what_an_agent_said_elsewhere_does_not_count(machine: Machine, name: str) -> None:
    AGENTS[name](machine, machine.work.parent / "elsewhere", 2000)
    machine.aider(machine.work, 1000)
    assert await machine.choose() == "aider"


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "aider"])
async def test_what_an_agent_said_below_the_directory_counts(machine: Machine, name: str) -> None:
    AGENTS[name](machine, machine.work / "below", 2000)
    machine.aider(machine.work, 1000)
    assert await machine.choose() == name


async def test_agents_that_changed_at_the_same_time_are_an_error_that_names_them(
    machine: Machine,
) -> None:
    machine.claude_code(machine.work, 2000)
    machine.aider(machine.work, 2001)
    machine.codex(machine.work, 1900)
    with pytest.raises(UnusableSource, match="claude-code and aider"):
        await machine.choose()


@pytest.mark.parametrize(
    ("agent", "name"),
    [("claude", "claude-code"), ("aider", "aider"), ("goose", "agentapi"), ("custom", "agentapi")],
)
async def test_agentapi_says_which_agent_it_runs(
    machine: Machine, app: FakeTaskApp, agent: str, name: str
) -> None:
    app.agent_type = agent
    machine.codex(machine.work, 2000)
    assert await machine.choose() == name


@pytest.mark.parametrize(
    "answer",
    [
        Response(status=500, body=b'{"agent_type": "claude"}'),
        Response(body=b"no json"),
        Response(body=b"[" * 60_000),
        Response(body=b'["claude"]'),
        Response(body=b'{"agent_type": "claude", "x": "' + b"x" * 100_000 + b'"}'),
    ],
    ids=["an error", "no JSON", "deep", "a list", "large"],
)
async def test_another_server_at_the_port_is_no_agentapi(
    machine: Machine, app: FakeTaskApp, answer: Response
) -> None:
    async def instead(_: Response) -> Response:
        return answer

    app.faults["/status"] = [instead]
    machine.codex(machine.work, 2000)
    assert await machine.choose() == "codex"


async def test_an_agentapi_that_does_not_answer_in_time_is_passed_over(
    machine: Machine, app: FakeTaskApp
) -> None:
    machine.codex(machine.work, 2000)
    async with app.handling_post():
        assert await machine.choose(replace(FAST, probe_timeout_seconds=0.05)) == "codex"


async def test_it_waits_until_there_is_something_and_says_so_once(machine: Machine) -> None:
    with structlog.testing.capture_logs() as logged:
        choosing = asyncio.create_task(machine.choose())
        await until(lambda: logged)
        assert logged[0]["event"] == "source.awaited"
        assert logged[0]["directory"] == str(machine.work)
        machine.codex(machine.work, 2000)
        assert await choosing == "codex"
    assert [event["event"] for event in logged] == ["source.awaited", "source.chosen"]


async def test_a_transcript_cannot_be_named(machine: Machine) -> None:
    with pytest.raises(UnusableSource, match="omit --transcript"):
        await chosen_source(SourceOptions(AUTO, transcript=machine.work), FAST, lambda: 0.0)


async def test_what_cannot_be_read_hides_no_other_agent(machine: Machine) -> None:
    machine.codex(machine.work, 1000)
    path = machine.home / ".local/share/opencode/opencode.db"
    path.parent.mkdir(parents=True)
    path.write_text("no database" * 1000)
    machine.gemini(machine.work, 3000)
    (machine.home / ".gemini/tmp/work/.project_root").unlink()
    (machine.home / ".claude/projects/-work").mkdir(parents=True)
    for at, line in enumerate(("[" * 100_000, '"text"', "no json", '{"cwd": 7}')):
        broken = machine.home / f".claude/projects/-work/{at}.jsonl"
        broken.write_text(line + "\n")
        os.utime(broken, (5000, 5000))
    assert await machine.choose() == "codex"


async def test_of_many_sessions_only_the_newest_are_searched(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_transcript, "MOST_FILES", 5)
    machine.aider(machine.work, 1000)
    machine.claude_code(machine.work, 2000, "own")
    elsewhere = machine.work.parent / "elsewhere"
    for number in range(4):
        machine.claude_code(elsewhere, 3000, f"{number}")
    assert await machine.choose() == "claude-code"
    machine.claude_code(elsewhere, 3000, "4")
    assert await machine.choose() == "aider"
