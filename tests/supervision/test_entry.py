"""Whether `tasklogs serve` runs one server, or a supervisor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tasklogs_server import app, entry
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision import service


@pytest.mark.parametrize(
    ("workers", "cores", "runs"),
    [
        (1, 8, ("server", 1)),
        (2, 1, ("supervisor", 2)),
        (0, 1, ("server", 1)),
        (0, 8, ("supervisor", 8)),
    ],
)
def test_several_workers_need_a_supervisor_and_0_means_one_for_each_core(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, runs: tuple[str, int]
) -> None:
    ran = []

    def recorded(name: str) -> Callable[..., Any]:
        async def serve(settings: ServerSettings, **_: Any) -> None:
            ran.append((name, settings.workers))

        return serve

    monkeypatch.setattr(app, "serve", recorded("server"))
    monkeypatch.setattr(service, "serve", recorded("supervisor"))
    monkeypatch.setattr(entry, "usable_cores", lambda: cores)
    serve(workers)
    assert ran == [runs]


def test_several_workers_are_refused_where_they_cannot_share_a_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(entry.StartupError, match="Linux"):
        serve(2)


def serve(workers: int) -> None:
    settings = ServerSettings.model_validate({"workers": workers})
    entry.serve(settings, on_progress=lambda _: None, on_ready=lambda _: None)
