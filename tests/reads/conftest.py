"""A log and its follows, and reads of pages, on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tasklogs_server.store import Store
from tests.reads.followed import World, followed
from tests.reads.page_reads import PageReads, page_reads


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    async with followed(database, progress_after=timedelta(seconds=15)) as made:
        yield made


@pytest.fixture
async def reads(store: Store) -> AsyncIterator[PageReads]:
    async with page_reads(store) as made:
        yield made
