"""The server's log holds lines of one kind, whoever writes them, and no text of an exception."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tasklogs_server import log_output

CONTENT = "what a person wrote"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def configure(level: str) -> None:
    logging.getLogger().handlers.clear()  # pytest has its own there while a test runs
    log_output.configure("json", level)


def fail() -> None:
    raise KeyError(CONTENT)


async def test_what_asyncio_says_of_a_lost_exception_has_its_place_and_not_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info")
    loop = asyncio.get_running_loop()

    def callback(_: str) -> None:
        fail()

    loop.call_soon(callback, CONTENT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    written = capsys.readouterr().err
    [line] = (json.loads(one) for one in written.splitlines())
    assert (line["logger"], line["level"]) == ("asyncio", "error")
    assert "in fail" in line["exception"]
    assert "KeyError" in line["exception"]
    assert CONTENT not in written


def test_a_library_warns_in_one_line_and_says_no_more_than_that(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("debug")
    library = logging.getLogger("opentelemetry.exporter")
    library.info("sent a batch")
    library.warning("the collector is away\nand more")

    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "the collector is away"
