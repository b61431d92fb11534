"""`--source auto`: chooses a source by what is there, once, before the session begins."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions, UnusableSource
from tasklogs.agent.sources.table import open_source
from tasklogs.agent.sources.transcript import Transcript
from tasklogs.connection.loopback import is_loopback
from tasklogs.publish.event_log import EventLog

_log = EventLog()

_AGENTS: Mapping[str, str] = {
    "claude": "claude-code",
    "codex": "codex",
    "gemini": "gemini",
    "opencode": "opencode",
    "aider": "aider",
}
"""The sources that have a place of their own, by the name that AgentAPI has for the agent."""
_MOST_STATUS_BYTES = 64 * 1024
_TOGETHER_NS = 1_000_000_000
"""Transcripts that changed within this time of each other changed at the same time."""


async def chosen_source(
    options: SourceOptions, settings: Settings, clock: Callable[[], float]
) -> str:
    """Return the name of the source to read. Waits until there is one.

    An AgentAPI that answers decides: it says which agent it runs. Else it is the agent whose
    transcript changed last in the current directory. Raises UnusableSource if several did.
    """
    if options.transcript is not None:
        raise UnusableSource("--source auto finds the transcript itself: omit --transcript")
    waits = False
    while True:
        of_agentapi = await _of_agentapi(options.agentapi_url, settings)
        found = of_agentapi or await asyncio.to_thread(_of_transcripts, options, settings, clock)
        if found is not None:
            name, reason = found
            _log.info("source.chosen", source=name, reason=reason)
            return name
        if not waits:
            waits = True
            # A URL may hold a password.
            place = urlsplit(options.agentapi_url).netloc.rpartition("@")[2]
            _log.info("source.awaited", agentapi=place, directory=str(Path.cwd()))
        await asyncio.sleep(settings.probe_interval_seconds)


async def _of_agentapi(url: str, settings: Settings) -> tuple[str, str] | None:
    """Return the source of the agent that AgentAPI runs, and why; None if none answers."""
    said = await _status(url, settings)
    if said is None:
        return None
    agent = said.get("agent_type")
    if not isinstance(agent, str) or agent not in _AGENTS:
        return "agentapi", "AgentAPI answers, and runs an agent whose transcripts are not known"
    if not is_loopback(urlsplit(url).hostname or ""):
        return "agentapi", "AgentAPI answers from another machine"
    return _AGENTS[agent], f"AgentAPI answers, and runs {agent}"


async def _status(url: str, settings: Settings) -> dict[str, Any] | None:
    """Return what AgentAPI says of itself; None if none answers in time."""
    body = bytearray()
    try:
        async with (
            asyncio.timeout(settings.probe_timeout_seconds),
            httpx.AsyncClient(trust_env=False, timeout=None) as http,
            http.stream("GET", f"{url.rstrip('/')}/status") as answer,
        ):
            answer.raise_for_status()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > _MOST_STATUS_BYTES:
                    return None
        said = json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _of_transcripts(
    options: SourceOptions, settings: Settings, clock: Callable[[], float]
) -> tuple[str, str] | None:
    """Return the source whose transcript changed last, and why. Raises UnusableSource."""
    directory = Path.cwd()
    changed: dict[str, int] = {}
    for name in _AGENTS.values():
        source = open_source(SourceOptions(name), settings, clock)
        assert isinstance(source, Transcript)
        changed_ns = _changed_ns(source, directory)
        if changed_ns is not None:
            changed[name] = changed_ns
    if not changed:
        return None
    latest = max(changed.values())
    names = [name for name, changed_ns in changed.items() if latest - changed_ns <= _TOGETHER_NS]
    if len(names) > 1:
        raise UnusableSource(
            f"auto cannot choose: the transcripts of {' and '.join(names)} changed at the same time"
            f" in {directory}: name the source"
        )
    return names[0], f"its transcript changed last in {directory}"


def _changed_ns(source: Transcript, directory: Path) -> int | None:
    try:
        return source.changed_ns(directory)
    except (OSError, sqlite3.Error):  # what one agent has must not hide the others
        return None
