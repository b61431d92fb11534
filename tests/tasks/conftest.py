"""The fixtures of store and ingest, and a keeper over them."""

from __future__ import annotations

import pytest

from tests.ingest.conftest import desk
from tests.ingest.desk import Desk
from tests.store.conftest import log, task
from tests.tasks.keeper import Keeper

__all__ = ["desk", "log", "task"]


@pytest.fixture
def keeper(desk: Desk) -> Keeper:
    return Keeper(desk)
