"""The agent's own log: one line per event, whatever a server or a task app says."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from tasklogs import log_output
from tasklogs.log_output import LogFormat
from tests.support.fixtures import plain_logs

CONTENT = "what a person wrote"
HOSTILE = "x\x1b]52;c;AAAA\x07\x9b1m\r\nconnected\u202e\u2028\x00"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    plain_logs.configure()


def configure(log_format: LogFormat, level: str) -> None:
    logging.getLogger().handlers.clear()  # pytest has its own there while a test runs
    log_output.configure(log_format, level)


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_hostile_text_stays_on_its_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    log_format: LogFormat,
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    configure(log_format, "info")
    # One without blanks is not quoted by structlog's own renderer.
    structlog.get_logger().warning("stream.ended", reason=HOSTILE, info="\x1b]52;c;AAAA\x07\x9b1m")

    [line] = capsys.readouterr().err.splitlines()
    for own in ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[{colour}m" for colour in range(30, 40))):
        line = line.replace(own, "")
    assert line.isprintable()


def test_json_keeps_each_field_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    structlog.get_logger().warning("stream.ended", reason=HOSTILE)

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["reason"]) == ("stream.ended", "warning", HOSTILE)


def test_for_people_a_field_without_a_value_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for log_format in ("console", "json"):
        configure(log_format, "info")
        structlog.get_logger().info("stream.ended", code="UNAVAILABLE", info=None)
    for_people, for_programs = capsys.readouterr().err.splitlines()

    assert "info=" not in for_people
    assert "code=UNAVAILABLE" in for_people
    assert json.loads(for_programs)["info"] is None


def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "warning")
    structlog.get_logger().info("stream.opened")
    assert capsys.readouterr().err == ""


def test_the_text_of_an_exception_is_never_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    try:
        raise KeyError(CONTENT)
    except KeyError as error:
        structlog.get_logger().error("agent.failed", exc_info=error)
        logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)

    written = capsys.readouterr().err
    assert [json.loads(line)["level"] for line in written.splitlines()] == ["error", "error"]
    assert "KeyError" in written
    assert CONTENT not in written
