"""Sessions over a real store, without gRPC. They use the store's fixtures, too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tasklogs_server.store import Store
from tests.ingest.desk import Desk
from tests.store.conftest import log, task

__all__ = ["log", "task"]


@pytest.fixture
async def desk(store: Store) -> AsyncIterator[Desk]:
    async with Desk.open(store) as opened:
        yield opened
