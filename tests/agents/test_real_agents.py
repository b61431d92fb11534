"""The real agents with the scripted model, the real `tasklogs agent` beside them, a real server.

`make agents` installs them, and sets TASKLOGS_INSTALLED_AGENTS to where they are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasklogs import TaskLogType
from tests.agents.expected import as_scripted, expected, last_said
from tests.agents.play import play, script
from tests.agents.reading import Log
from tests.agents.runs import Home
from tests.agents.table import AGENTS, source
from tests.agents.versions import VERSIONS
from tests.support.fixtures.server import MakeServer
from tests.support.model_server import ModelServer

_INSTALLED = os.environ.get("TASKLOGS_INSTALLED_AGENTS")

pytestmark = [
    pytest.mark.skipif(not _INSTALLED, reason="the agents are not installed: run `make agents`"),
    pytest.mark.timeout(900),
]


@pytest.fixture
async def log(make_server: MakeServer) -> AsyncIterator[Log]:
    async with make_server() as server, Log.open(server) as log:
        yield log


@pytest.mark.parametrize("name", sorted(VERSIONS))
async def test_the_log_is_what_the_model_said(log: Log, name: str, tmp_path: Path) -> None:
    assert _INSTALLED is not None
    if name == "aider" and not Path(_INSTALLED, "aider").exists():
        pytest.skip("Aider needs a Python before 3.13")
    directory = tmp_path / name
    async with ModelServer(script(name, directory / "work")) as model:
        agent = AGENTS[name](Home(directory, Path(_INSTALLED), model.url))

        async def ended(phase: str) -> None:
            said = as_scripted(name, await log.live())
            assert said[-1].content == last_said(name, phase)

        async with log.agent(source(name), agent.transcript):
            await play(agent, model, ended)
        assert model.unknown == []
    stored = [as_scripted(name, epoch) for epoch in await log.epochs()]
    # A summary is the agent's own text, with the model's answer in it.
    notices = [one.content for one in stored[0] if one.type is TaskLogType.NOTICE]
    summary = next((notice for notice in notices if "Scripted summary." in notice), "")
    assert stored == expected(name, summary)
