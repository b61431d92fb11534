"""Record what the real agents write: `python -m tests.agents.record INSTALLED [AGENT ...]`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.agents import scenario
from tests.agents.recording import CUTS, Recorder, Recording
from tests.agents.runs import AGENTS, Codex, Home
from tests.agents.versions import VERSIONS
from tests.support.model_server import ModelServer

_TURNS = (scenario.LOOK, scenario.SAY, scenario.SAY_AGAIN, scenario.COUNT, scenario.CODE)


async def record(name: str, installed: Path, directory: Path) -> Recording:
    """Run the scenario with one real agent."""
    workspace = directory / "work"
    call = AGENTS[name].read_call(workspace / "hello.txt")
    async with ModelServer(scenario.script(call)) as model:
        at = Home(directory, installed, model.url)
        agent = AGENTS[name](at)
        agent.transcript.mkdir(parents=True, exist_ok=True)
        recorder = Recorder(agent.transcript, at.work, CUTS[name])

        async def turn(prompt: str, phase: str = "", *, resume: bool = True) -> None:
            await (await agent.start(prompt, resume=resume)).ended()
            recorder.phase(phase or prompt)

        for number, prompt in enumerate(_TURNS):
            await turn(prompt, resume=number > 0)
        held = await agent.start(scenario.HELD, resume=True)
        await model.is_holding.wait()
        await held.kill()
        model.release()
        recorder.phase("killed")
        await turn(scenario.GO_ON)
        if name == "claude-code":
            await turn("/compact", "compacted")
        if isinstance(agent, Codex):
            agent.compact_above_tokens = 15
        if name in ("claude-code", "codex"):
            await turn(scenario.COMPACTED)
        if name == "claude-code":
            await (await agent.start(scenario.FORKED, resume=True, fork=True)).ended()
            recorder.phase(scenario.FORKED)
        if isinstance(agent, Codex):
            agent.compact_above_tokens = None
        await turn(scenario.OTHER, resume=False)
    today = datetime.now(UTC).date().isoformat()
    return Recording(name, VERSIONS[name], today, recorder.phases)


async def main(installed: Path, names: list[str]) -> None:
    for name in names or list(CUTS):
        with tempfile.TemporaryDirectory(prefix="agents-", dir=Path.home()) as directory:
            (await record(name, installed, Path(directory) / name)).save()
        sys.stdout.write(f"{name}: recorded\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
