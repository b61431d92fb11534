"""The version is looked up once, and its absence is no error."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import pytest

from tasklogs import TaskLogsClient, version


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    version.version.cache_clear()
    yield
    version.version.cache_clear()


async def test_a_program_without_metadata_can_use_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version.version() == version.UNKNOWN
    async with TaskLogsClient("127.0.0.1:1"):
        pass


def test_it_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = version.version()
    monkeypatch.delattr(metadata, "version")
    assert version.version() == known
