"""The source that docs/sources.md has as its example, on a real server."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest

from tasklogs.agent.sources.table import SOURCES
from tests.agent.sources.test_jsonl import agent_on, contents, token_of
from tests.support.fixtures.server import MakeServer, Server

DOCUMENT = Path(__file__).parents[3] / "docs" / "sources.md"


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the example, and return its name."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    module = ModuleType("documented_source")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code[1], str(DOCUMENT), "exec", dont_inherit=True), module.__dict__)
    monkeypatch.setitem(SOURCES, "chat", "documented_source:Chat")
    return "chat"


async def test_the_example_reads_its_file(server: Server, source: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("user: hello\nbot: hi\nthinking ...\n")
    token = await token_of(server)
    async with agent_on(server, token, path, source=source):
        assert await contents(server) == ["hello", "hi"]
    with path.open("a") as file:
        file.write("bot: again\n--- new chat ---\nuser: more\n")
    async with agent_on(server, token, path, source=source):
        assert await contents(server) == ["more"]
        assert await contents(server, 1) == ["hello", "hi", "again"]
