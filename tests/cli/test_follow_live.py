"""`tasklogs logs -f` with the real server and an agent's stream."""

from __future__ import annotations

import json
import signal

from tests.cli.command import finish, started
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.server import Server


async def test_an_answer_is_printed_as_the_agent_writes_it(server: Server) -> None:
    created = await server.create_task("demo")
    arguments = ("logs", "local/demo", "-f", "--server", server.address)
    async with (
        ScriptedAgent.connect(server, created.agent_token) as agent,
        started(*arguments) as process,
    ):
        assert process.stdout is not None
        await agent.append([log_entry(0, "It is")], open_epoch=True)
        shown = await process.stdout.readuntil(b"It is")
        await agent.append(tail=tail_delta(0, 5, " 42."))
        shown += await process.stdout.readuntil(b"42.")
        process.send_signal(signal.SIGINT)
        finished = await finish(process)

    assert shown.decode().endswith("\nIt is 42.")
    assert (finished.code, finished.stdout) == (0, "\n\n")
    assert "tasklogs: local/demo is pending\n" in finished.stderr


async def test_a_follow_with_a_cursor_from_json_continues_after_it(server: Server) -> None:
    created = await server.create_task("demo")
    arguments = ("logs", "local/demo", "-f", "-o", "jsonl", "--server", server.address)
    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        await agent.append([log_entry(0, "a"), log_entry(1, "b")], open_epoch=True)
        await agent.acked()
        async with started(*arguments) as process:
            assert process.stdout is not None
            line = {}
            while "caughtUp" not in line:
                line = json.loads(await process.stdout.readline())
        await agent.append([log_entry(2, "c")])
        await agent.acked()

        async with started(*arguments, "--cursor", line["cursor"]) as process:
            assert process.stdout is not None
            while "entries" not in line:
                line = json.loads(await process.stdout.readline())

    assert [each["content"] for each in line["entries"]["logs"]] == ["c"]
