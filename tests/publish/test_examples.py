"""Runs the examples of docs/publishing.md and of the publishers' docstrings, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasklogs import Publisher, SyncPublisher
from tests.client.test_examples import run_examples
from tests.support.fixtures.server import MakeServer, Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "publishing.md"


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.mark.parametrize("text", [DOCUMENT.read_text(), Publisher.__doc__, SyncPublisher.__doc__])
async def test_the_examples_work(server: Server, text: str) -> None:
    made = await server.create_task("demo", standalone=True)
    with_token = text.replace("=agent_token", f'="{made.agent_token}"')
    await asyncio.to_thread(run_examples, with_token, "examples", server.address)
