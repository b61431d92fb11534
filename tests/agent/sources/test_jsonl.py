"""A program that writes JSON lines, an agent that reads them, a real server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from tasklogs import LogSource, TaskLogsClient, TaskLogType
from tasklogs.agent.run import Agent, Options
from tasklogs.client.entry import LogEntry
from tasklogs.errors import TaskStateConflict, Unavailable
from tasklogs.publish.journal import Journal
from tasklogs.v1.task_agents_pb2 import Goodbye
from tests.agent.conftest import FAST
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import MakeServer, Server

SOON = timedelta(seconds=DEADLINE_SECONDS)
QUICK = replace(FAST, look_interval_seconds=0.02)


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


class Program:
    """Writes lines, as an agent would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, content: str, **fields: object) -> None:
        self.line(json.dumps({"type": kind, "content": content, **fields}))

    def line(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text + "\n")


@asynccontextmanager
async def agent_on(
    server: Server, token: str, path: Path, **options: object
) -> AsyncIterator[Agent]:
    """Run an agent; at the end it is cancelled, as by SIGKILL."""
    chosen: dict[str, object] = {"source": "jsonl", "transcript": path, **options}
    agent = Agent(Options(server.address, token, **chosen), QUICK)  # type: ignore[arg-type]
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        if not agent.departure.is_wanted:
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def entries(server: Server, epoch: int | None = None, *, live: bool = True) -> list[LogEntry]:
    """Read. `live`: wait until the current epoch can be read live."""
    source = LogSource.LIVE if live and epoch is None else None
    async with (
        TaskLogsClient(server.address, timeout=SOON) as client,
        asyncio.timeout(DEADLINE_SECONDS),
    ):
        while True:
            try:
                return await (await client.get("local/demo", epoch=epoch, source=source)).all()
            except (TaskStateConflict, Unavailable):  # the agent has not connected yet
                await asyncio.sleep(0.01)


async def epoch_of(server: Server) -> int:
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        return (await client.get("local/demo", source=LogSource.SNAPSHOT)).epoch


async def contents(server: Server, epoch: int | None = None, *, live: bool = True) -> list[str]:
    return [entry.content for entry in await entries(server, epoch, live=live)]


async def token_of(server: Server) -> str:
    return (await server.create_task("demo", standalone=True)).agent_token


async def test_a_live_read_has_every_line_that_was_in_the_file(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("input", "0")
    async with agent_on(server, await token_of(server), path):
        for number in range(1, 50):
            program.write("output", str(number))
            assert await contents(server) == [str(n) for n in range(number + 1)]


@pytest.mark.parametrize("seed", range(2))
async def test_a_live_read_at_any_moment_has_the_lines_before_it(
    server: Server, path: Path, seed: int
) -> None:
    """A program writes all the time, also halves of lines."""
    rng = random.Random(seed)
    whole = 0

    async def write() -> None:
        nonlocal whole
        with path.open("ab", buffering=0) as file:
            while True:
                lines = [
                    json.dumps({"type": "output", "content": str(whole + n)}).encode() + b"\n"
                    for n in range(rng.randrange(1, 20))
                ]
                written = b"".join(lines)
                half = rng.randrange(len(written))
                file.write(written[:half])
                await asyncio.sleep(rng.choice([0.0, 0.001, 0.01]))
                file.write(written[half:])
                whole += len(lines)
                await asyncio.sleep(rng.choice([0.0, 0.001, 0.02]))

    writing = asyncio.create_task(write())
    try:
        async with agent_on(server, await token_of(server), path):
            for _ in range(50):
                before = whole
                found = await contents(server)
                assert len(found) >= before
                assert found == [str(number) for number in range(len(found))]
                await asyncio.sleep(rng.choice([0.0, 0.003, 0.01]))
    finally:
        writing.cancel()
        await asyncio.wait({writing})


async def test_an_entry_has_what_its_line_says(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("input", "漢 \x00 🎈", time="2026-11-30T12:00:00.123456789Z", id="m1")
    program.write("tool_call", "", name="sh", call_id="c1")
    program.line('{"type": "tool_result", "content": {"a": ["b"]}, "name": "sh", "call_id": "c1"}')
    program.write("notice", "compacted")
    async with agent_on(server, await token_of(server), path):
        said, call, result, notice = await entries(server)
    assert (said.content, said.source_id) == ("漢 \x00 🎈", "m1")
    assert said.time_ns % 10**9 == 123456789
    assert (call.type, call.name, call.call_id) == (TaskLogType.TOOL_CALL, "sh", "c1")
    assert (result.content, result.call_id) == ('{"a": ["b"]}', "c1")
    assert notice.type is TaskLogType.NOTICE


async def test_the_same_id_again_replaces_the_last_entry(server: Server, path: Path) -> None:
    program = Program(path)
    async with agent_on(server, await token_of(server), path):
        program.write("output", "a draft that is long", id="1")
        assert await contents(server) == ["a draft that is long"]
        program.write("output", "short", id="1")
        assert await contents(server) == ["short"]
        program.write("output", "next", id="2")
        program.write("output", "not the last one's id", id="1")
        assert await contents(server) == ["short", "next", "not the last one's id"]


async def test_ids_that_are_too_long_stay_different(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("output", "a", id="x" * 300 + "a")
    program.write("output", "b", id="x" * 300 + "b")
    async with agent_on(server, await token_of(server), path):
        assert await contents(server) == ["a", "b"]


async def test_a_secret_in_a_long_name_is_redacted_before_it_is_cut(
    server: Server, path: Path
) -> None:
    Program(path).write("tool_call", "", name="x" * 240 + "sk-0123456789abcdefghij")
    async with agent_on(server, await token_of(server), path, redact=(r"sk-[a-z0-9]{20}",)):
        (entry,) = await entries(server)
    assert "sk-" not in entry.name


async def test_the_same_id_of_another_type_is_another_entry(server: Server, path: Path) -> None:
    """Also for an agent that starts again."""
    program = Program(path)
    program.write("tool_call", "ls", id="1")
    program.write("tool_result", "log.jsonl", id="1")
    token = await token_of(server)
    for _ in range(2):
        async with agent_on(server, token, path):
            assert await contents(server) == ["ls", "log.jsonl"]
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        assert (await client.get("local/demo", source=LogSource.SNAPSHOT)).epoch == 1


async def test_a_line_may_begin_another_conversation(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("input", "one")
    program.write("input", "two", epoch="new")
    program.line('{"epoch": "new"}')
    program.write("input", "three")
    async with agent_on(server, await token_of(server), path):
        assert await contents(server) == ["three"]
        assert await contents(server, 1) == ["one"]
        assert await contents(server, 2) == ["two"]


@pytest.mark.parametrize("timed", [True, False])
async def test_an_agent_that_was_killed_goes_on_where_the_log_ends(
    server: Server, path: Path, timed: bool
) -> None:
    program = Program(path)
    token = await token_of(server)
    expected: list[str] = []
    for number in range(6):
        fields = {"time": f"2026-11-30T12:00:{number:02}Z"} if timed else {}
        program.write("output", str(number), **fields)
        program.write("output", f"{number} again", id=f"i{number}", **fields)
        async with agent_on(server, token, path):
            assert await contents(server) == [*expected, str(number), f"{number} again"]
        program.write("output", f"{number} over", id=f"i{number}", **fields)
        expected += [str(number), f"{number} over"]
    async with agent_on(server, token, path):
        assert await contents(server) == expected
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        assert (await client.get("local/demo", source=LogSource.SNAPSHOT)).epoch == 1


async def test_the_same_id_of_another_type_is_another_entry_also_after_a_restart(
    server: Server, path: Path
) -> None:
    program = Program(path)
    token = await token_of(server)
    program.write("tool_call", "ls", id="1")
    program.write("tool_result", "a file", id="1")
    program.write("output", "done", id="2")
    for _ in range(2):
        async with agent_on(server, token, path):
            assert await contents(server) == ["ls", "a file", "done"]
    assert await epoch_of(server) == 1


async def test_long_ids_that_differ_at_the_end_are_different(server: Server, path: Path) -> None:
    program = Program(path)
    for number in range(3):
        program.write("output", str(number), id="漢" * 100 + str(number), name="\ud800")
    async with agent_on(server, await token_of(server), path):
        found = await entries(server)
    assert [entry.content for entry in found] == ["0", "1", "2"]
    assert len({entry.source_id for entry in found}) == 3
    assert found[0].name == "\ufffd"


@pytest.mark.parametrize("last_has_time", [True, False])
async def test_lines_with_and_without_times_go_on_after_a_restart(
    server: Server, path: Path, last_has_time: bool
) -> None:
    program = Program(path)
    token = await token_of(server)
    expected: list[str] = []
    for number in range(6):
        timed = (number % 2 == 0) == last_has_time
        fields = {"time": f"2026-11-30T12:00:{number:02}Z"} if timed else {}
        program.write("output", str(number), **fields)
        expected.append(str(number))
        async with agent_on(server, token, path):
            assert await contents(server) == expected
    assert await epoch_of(server) == 1


async def test_conversations_that_begin_alike_are_not_repeated_after_a_restart(
    server: Server, path: Path
) -> None:
    program = Program(path)
    token = await token_of(server)
    for number in range(1, 4):
        program.write("input", "hello", epoch="new")
        async with agent_on(server, token, path):
            assert await contents(server) == ["hello"]
            assert await epoch_of(server) == number
    program.write("output", "hi")
    async with agent_on(server, token, path):
        assert await contents(server) == ["hello", "hi"]
        assert await epoch_of(server) == 3


@pytest.mark.parametrize("megabytes", [1, 9])
async def test_a_long_line_does_not_stop_the_others(
    server: Server, path: Path, megabytes: int
) -> None:
    program = Program(path)
    program.write("input", "before")
    program.write("output", "x" * (megabytes * 1024 * 1024))
    program.write("input", "after")
    async with agent_on(server, await token_of(server), path):
        found = await contents(server)
    assert (found[0], found[-1], len(found)) == ("before", "after", 3 if megabytes == 1 else 2)


async def test_another_file_is_another_conversation(server: Server, path: Path) -> None:
    token = await token_of(server)
    for text in ("one", "two"):
        path.unlink(missing_ok=True)
        program = Program(path)
        program.write("output", text)
        program.write("output", "done")
        async with agent_on(server, token, path):
            await entries(server)
    async with agent_on(server, token, path):
        assert await contents(server) == ["two", "done"]
        assert await contents(server, 1) == ["one", "done"]


async def test_a_goodbye_sends_what_was_written_before_it(server: Server, path: Path) -> None:
    program = Program(path)
    token = await token_of(server)
    async with agent_on(server, token, path) as agent:
        program.write("output", "one")
        await entries(server)
        program.write("output", "last words")
        agent.departure.want(Goodbye.REASON_PAUSING)
    assert await contents(server, live=False) == ["one", "last words"]


async def test_what_is_redacted_is_nowhere(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("tool_result", "key sk-0123456789abcdefghij!", name="sk-0123456789abcdefghij")
    async with agent_on(
        server, await token_of(server), path, redact=(r"sk-[a-z0-9]{20}", "nothing")
    ):
        (entry,) = await entries(server)
    assert (entry.content, entry.name) == ("key [redacted]!", "[redacted]")


async def test_a_secret_in_an_id_or_a_type_is_redacted_before_it_is_cut(
    server: Server, path: Path
) -> None:
    secret = "sk-0123456789abcdefghij"
    program = Program(path)
    program.write("output", "one", id="x" * 245 + secret, call_id=secret)
    program.write(secret, "not an entry")
    program.write("output", "two")
    with structlog.testing.capture_logs() as logged:
        async with agent_on(server, await token_of(server), path, redact=(r"sk-[a-z0-9]{20}",)):
            found = await entries(server)
    assert [entry.content for entry in found] == ["one", "two"]
    assert found[0].source_id == "x" * 245 + "[redacted]"
    assert found[0].call_id == "[redacted]"
    assert "sk-" not in str(logged)


async def test_a_long_file_is_stored_in_order_with_little_memory(
    server: Server, path: Path
) -> None:
    """The agent holds what waits, however long the file is, also when it starts again."""
    lines = [json.dumps({"type": "output", "content": f"{n} " + "x" * 80}) for n in range(20_000)]
    path.write_text("\n".join(lines) + "\n" + json.dumps({"type": "output", "content": "half"}))
    token = await token_of(server)
    for _ in range(2):
        async with agent_on(server, token, path) as agent:
            async with asyncio.timeout(DEADLINE_SECONDS):
                found = await contents(server)
            journal = agent.source.feed
            assert isinstance(journal, Journal)
            assert journal.held_bytes < 5_000_000
        assert len(found) == 20_000
        assert [one.split()[0] for one in found] == [str(n) for n in range(20_000)]
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        assert (await client.get("local/demo", source=LogSource.SNAPSHOT)).epoch == 1


async def test_what_happens_to_the_file_is_one_epoch_each(server: Server, path: Path) -> None:
    program = Program(path)
    program.write("output", "one")
    async with agent_on(server, await token_of(server), path):
        assert await contents(server) == ["one"]
        path.write_text("")
        program.write("output", "two")
        assert await contents(server) == ["two"]
        path.unlink()
        assert await contents(server) == ["two"]
        program.write("output", "three")
        program.line("no JSON")
        program.line('{"type": "secret_request", "content": "x"}')
        assert await contents(server) == ["three"]
        for number, expected in enumerate(("one", "two", "three"), start=1):
            assert await contents(server, number) == [expected]


async def test_what_is_left_out_is_logged_once_without_its_content(
    server: Server, path: Path
) -> None:
    program = Program(path)
    with structlog.testing.capture_logs() as logged:
        async with agent_on(server, await token_of(server), path):
            for number in range(5):
                program.line("a secret {")
                program.line('{"type": "request", "content": "a secret"}')
                program.line('{"type": "a secret type !", "content": "a secret"}')
                program.write("output", str(number))
                assert len(await contents(server)) == number + 1
    told = [one for one in logged if one["event"] == "transcript.left_out"]
    assert [one["count"] for one in told] == [3, 15]
    assert told[1]["kinds"] == ["no_json", "other", "request"]
    assert "secret" not in str(logged)
