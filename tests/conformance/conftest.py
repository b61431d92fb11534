"""The driver of each language."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache

import pytest

from tests.conformance import drivers


@pytest.fixture(scope="session")
def command_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Sequence[str]]:
    """Return the command of the driver of a language, which is built once."""
    return cache(lambda language: drivers.command(language, tmp_path_factory.mktemp(language)))


@pytest.fixture(params=drivers.LANGUAGES)
async def driver(
    request: pytest.FixtureRequest, command_of: Callable[[str], Sequence[str]]
) -> AsyncIterator[drivers.Driver]:
    why = drivers.missing(request.param)
    if why is not None:
        pytest.skip(why)
    async with drivers.running(command_of(request.param)) as driver:
        yield driver
