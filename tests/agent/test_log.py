"""The agent's own log on a terminal: a server's words and a task app's steer nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import structlog

from tasklogs.agent import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_strangers_say_stays_on_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure()
    hostile = "x\x1b]52;c;AAAA\x07\x9b1m\r\nconnected\u202e\u2028\x00"
    # One without blanks is not quoted by structlog's own renderer.
    structlog.get_logger().warning("disconnected", reason=hostile, info="\x1b]52;c;AAAA\x07\x9b1m")

    [line] = capsys.readouterr().err.splitlines()
    for own in ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[{colour}m" for colour in range(30, 40))):
        line = line.replace(own, "")
    assert line.isprintable()
