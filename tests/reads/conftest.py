"""A log and its follows, on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.reads.followed import World, followed


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    async with followed(database, progress_after=timedelta(seconds=15)) as made:
        yield made
