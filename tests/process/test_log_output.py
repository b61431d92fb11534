"""All lines of the server's log have one form, and none has the text of an exception."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from tasklogs_server.process import log_output
from tests.support.fixtures import plain_logs

CONTENT = "what a person wrote"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    plain_logs.configure()


def configure(level: str, log_format: Literal["console", "json"] = "json") -> None:
    logging.getLogger().handlers.clear()  # pytest has its own there while a test runs
    log_output.configure(log_format, level)


def fail() -> None:
    raise KeyError(CONTENT)


async def test_asyncios_line_of_a_lost_exception_has_its_frames_and_not_its_text(
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


def test_the_first_line_of_a_librarys_warning_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("debug")
    library = logging.getLogger("opentelemetry.exporter")
    library.info("sent a batch")
    library.warning("the collector is away\nand more")

    [line] = (json.loads(one) for one in capsys.readouterr().err.splitlines())
    assert line["event"] == "library.logged"
    assert (line["logger"], line["level"]) == ("opentelemetry.exporter", "warning")
    assert line["message"] == "the collector is away"


def test_what_a_library_logs_of_an_ignored_exception_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers.clear()
    log_output.configure("json", "info", is_ignored=lambda error: isinstance(error, KeyError))
    library = logging.getLogger("grpc")
    for error in (KeyError(CONTENT), ValueError(CONTENT)):
        library.error("it failed", exc_info=error)
    library.error("it failed without an exception")

    lines = [json.loads(one) for one in capsys.readouterr().err.splitlines()]
    assert [one.get("exception", "").endswith("ValueError") for one in lines] == [True, False]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_hostile_text_starts_no_new_line_and_sends_no_control_characters(
    capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    """A reason may quote a certificate or a JWKS. A library's message may quote anything."""
    configure("debug", log_format)
    hostile = "x\x1b[2J\x9b1m\r\n2026-01-01 [info] server.draining\u202e\u2028\x00"
    structlog.get_logger().warning("keys.kept", reason=hostile, one=[hostile])
    structlog.get_logger().warning(hostile)
    logging.getLogger("grpc").error("%s", hostile)

    written = capsys.readouterr().err
    assert len(written.splitlines()) == 3
    assert all(character.isprintable() for line in written.splitlines() for character in line)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_line_has_the_text_of_an_exception(
    capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    """asyncpg quotes the arguments of a query that it cannot encode."""
    configure("debug", log_format)
    try:
        fail()
    except KeyError as error:
        structlog.get_logger().exception("commit.failed", tasks=1)
        structlog.get_logger().error("commit.failed", exc_info=error)

    written = capsys.readouterr().err
    assert written.count("in fail") == 2
    assert "KeyError" in written
    assert CONTENT not in written
