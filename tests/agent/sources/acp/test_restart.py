"""An agent that restarts while an answer grows."""

from __future__ import annotations

import json
from pathlib import Path

from tests.agent.sources.acp.stream import chunk, prompt
from tests.agents.reading import Log
from tests.support.fixtures.server import MakeServer


async def test_an_agent_that_restarts_goes_on_in_an_answer_that_grows(
    make_server: MakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "acp.jsonl"
    answer = ""
    async with make_server() as server, Log.open(server) as log:
        with path.open("a", buffering=1) as file:
            file.write(json.dumps(prompt(1, "Count.")) + "\n")
            for number in range(5):
                for piece in (f"{number} ", "and "):
                    file.write(json.dumps(chunk(piece)) + "\n")
                    answer += piece
                async with log.agent("acp", path):
                    assert [one.content for one in await log.live()] == ["Count.", answer]
        assert len(await log.epochs()) == 1
