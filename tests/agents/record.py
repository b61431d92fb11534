"""Record what the real agents write: `python -m tests.agents.record INSTALLED [AGENT ...]`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.agents.acp_runs import AcpRun
from tests.agents.play import play, script
from tests.agents.recording import (
    AIDER_FILES,
    CUTS,
    DatabaseRecorder,
    Recorder,
    Recording,
    cut_aider,
)
from tests.agents.runs import Aider, Home, OpenCode
from tests.agents.table import AGENTS, Run
from tests.agents.versions import VERSIONS
from tests.support.model_server import ModelServer


async def record(name: str, installed: Path, directory: Path) -> Recording:
    """Run the scenario with one real agent."""
    async with ModelServer(script(name, directory / "work")) as model:
        agent = AGENTS[name](Home(directory, installed, model.url))
        recorder = _recorder(agent)

        async def ended(phase: str) -> None:
            recorder.phase(phase)

        await play(agent, model, ended)
    today = datetime.now(UTC).date().isoformat()
    return Recording(name, VERSIONS[name], today, recorder.phases)


def _recorder(agent: Run) -> Recorder | DatabaseRecorder:
    if isinstance(agent, OpenCode):
        return DatabaseRecorder(agent.transcript, agent.at.work)
    if isinstance(agent, Aider):
        return Recorder(agent.transcript, agent.at.work, cut_aider, AIDER_FILES, str)
    directory = agent.transcript.parent if isinstance(agent, AcpRun) else agent.transcript
    directory.mkdir(parents=True, exist_ok=True)
    return Recorder(directory, agent.at.work, CUTS[agent.name])


async def main(installed: Path, names: list[str]) -> None:
    for name in names or AGENTS:
        with tempfile.TemporaryDirectory(prefix="agents-", dir=Path.home()) as directory:
            (await record(name, installed, Path(directory) / name)).save()
        sys.stdout.write(f"{name}: recorded\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
