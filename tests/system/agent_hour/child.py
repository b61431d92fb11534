"""The real `tasklogs agent`. Its wall clock and its look-ups of names follow files."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from tasklogs.cli.main import main
from tests.system.soak import moved_clock

DIRECTORY_VARIABLE = "AGENT_HOUR_DIRECTORY"
CLOCK, LOOK_UP_SECONDS = "clock", "look_up_seconds"
TASK_APP_HOST = "task-app.example"
"""A name that only this program can look up."""


def _slow_look_ups(file: Path) -> None:
    """Let each look-up take the seconds in `file`; a missing file: none."""
    look_up = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if file.exists():
            time.sleep(float(file.read_text()))
        if host in (TASK_APP_HOST, TASK_APP_HOST.encode()):
            host = "127.0.0.1"
        return look_up(host, *arguments, **options)

    vars(socket)["getaddrinfo"] = slow


if __name__ == "__main__":
    directory = Path(os.environ[DIRECTORY_VARIABLE])
    moved_clock.follow(directory / CLOCK)
    _slow_look_ups(directory / LOOK_UP_SECONDS)
    main()
