"""Live reads at random moments, while a real agent's lines are written to a file."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasklogs import TaskLogType
from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import NewEpoch, Record
from tasklogs.agent.sources.table import open_source
from tasklogs.agent.sources.transcript import Transcript
from tests.agents.reading import Log
from tests.agents.recording import Recording
from tests.agents.table import source
from tests.support.fixtures.server import MakeServer

_MOMENTS = 100
Text = tuple[TaskLogType, str]


def lines_of_first_file(name: str) -> list[str]:
    phases = Recording.load(name).phases
    first = next(iter(phases[0].appended))
    found = [line for phase in phases for line in phase.appended.get(first, [])]
    return [json.dumps(line, ensure_ascii=False) + "\n" for line in found]


def texts(name: str, path: Path, lines: list[str]) -> Iterator[list[Text]]:
    """Yield what the current epoch has before the first line, and after each."""
    read = open_source(SourceOptions(source(name), transcript=path), Settings(), lambda: 0.0)
    assert isinstance(read, Transcript)
    epoch: list[Text] = []
    yield []
    for line in lines:
        for found in read.parse(line.encode()):
            match found:
                case NewEpoch():
                    epoch = []
                case Record():
                    before = epoch.pop()[1] if found.extends or found.replaces else ""
                    text = before + found.content if found.extends else found.content
                    epoch.append((TaskLogType(found.type), text))
        yield list(epoch)


def holds(said: list[Text], known: list[Text]) -> bool:
    """Whether a log has what is known. Its last known entry may have grown since."""
    if not known:
        return True
    last, (kind, text) = len(known) - 1, known[-1]
    is_there = said[:last] == known[:last] and len(said) > last
    return is_there and said[last][0] == kind and said[last][1].startswith(text)


@pytest.mark.parametrize("name", ["claude-code", "codex", "acp-opencode"])
async def test_a_live_read_has_every_line_that_was_in_the_file(
    make_server: MakeServer, name: str, tmp_path: Path
) -> None:
    chance = random.Random(name)
    path = tmp_path / "session.jsonl"
    lines = lines_of_first_file(name)
    if name.startswith("acp-"):
        lines = lines[: lines.index(next(one for one in reversed(lines) if '"session/new"' in one))]
    known = list(texts(name, path, lines))
    ends = sorted(chance.choices(range(1, len(lines) + 1), k=_MOMENTS))
    async with make_server() as server, Log.open(server) as log:
        with path.open("a", buffering=1) as file:
            written = 0
            async with log.agent(source(name), path):
                for end in ends:
                    file.writelines(lines[written:end])
                    written = max(written, end)
                    reading = asyncio.create_task(log.live())
                    for line in lines[written : written + chance.randrange(3)]:
                        await asyncio.sleep(chance.choice([0.0, 0.001, 0.003]))
                        file.write(line)
                        written += 1
                    said = [(entry.type, entry.content) for entry in await reading]
                    assert holds(said, known[end])
                    assert holds(known[written], said)
