"""What tests of the supervisor share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasklogs_server.supervision import worker_process

Scripted = Callable[..., None]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Let workers follow a script from now on: see `scripted_worker`."""

    def follow(script: str) -> None:
        program = ("-m", "tests.supervision.scripted_worker", script)
        monkeypatch.setattr(worker_process, "_PROGRAM", program)

    return follow
