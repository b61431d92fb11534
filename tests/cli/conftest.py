from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    """A server with the responses of the test's script."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
def data_dir(migrated_data_dir: Path, tmp_path: Path) -> Path:
    """A data directory as an earlier server left it. Running initdb would take a second."""
    return Path(shutil.copytree(migrated_data_dir, tmp_path / "data"))
