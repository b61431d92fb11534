"""A row that fails is reported with its reason; the others are measured."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bench import reads
from bench.__main__ import main
from bench.clients import ClientError, together, workers
from bench.result import Result
from bench.stage import GET_TASK_LOGS, Stage, read_request


async def _loses_a_client(stage: Stage) -> list[Result]:
    tasks = await stage.create_tasks(2)
    await stage.fill(tasks, entries=1, content_bytes=10)
    reads = stage.load(
        stage.ours, GET_TASK_LOGS, [[read_request(task)] for task in tasks], seconds=300
    )
    under_way = asyncio.ensure_future(reads.run())
    await asyncio.sleep(0)
    os.kill(stage.clients[0].pid, signal.SIGKILL)
    try:
        await under_way
    finally:
        # The clean-up of a measurement: it fails too, and must not hide the reason.
        await together([client.do("close_agents") for client in stage.clients])
    return []


@pytest.mark.timeout(240)
def test_a_row_that_fails_says_why_and_costs_no_other_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {"client": _loses_a_client, "live": reads.live_of_one}
    code = main(["--quick", "--only", *rows], rows)

    said = capsys.readouterr()
    assert code == 1
    failed = [line for line in said.out.splitlines() if line.startswith("- FAILED")]
    assert failed == ["- FAILED: client: a client process ended during load: SIGKILL"]
    assert "| live read with nothing new, 32 callers on one task" in said.out
    assert "FAILED: client: a client process ended during load: SIGKILL\nTraceback" in said.err


async def test_a_client_process_goes_on_after_a_command_that_failed() -> None:
    async with workers(1) as (client,):
        with pytest.raises(ClientError, match=r"^flood failed in a client process: TypeError: "):
            await client.do("flood", entries=1)
        assert await client.do("close_agents") == 0


async def test_the_answer_to_an_abandoned_command_is_taken_for_no_other_one() -> None:
    async with workers(1) as (client,):
        abandoned = asyncio.ensure_future(client.do("close_agents"))
        await asyncio.sleep(0)
        abandoned.cancel()
        with pytest.raises(ClientError, match="its client process was given up at close_agents"):
            await client.do("open_upserts", dsn="")


async def test_commands_of_one_client_process_wait_for_their_turn() -> None:
    async with workers(1) as (client,):
        assert await together([client.do("close_agents") for _ in range(3)]) == [0, 0, 0]
