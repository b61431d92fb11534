from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    """A server with the responses of the test's script."""
    async with scripted_server() as server:
        yield server
