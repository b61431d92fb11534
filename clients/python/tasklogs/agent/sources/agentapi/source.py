"""AgentAPI as a source of the agent."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.client import TaskApp
from tasklogs.agent.sources.agentapi.watch import Watch
from tasklogs.agent.sources.options import SourceOptions, UnusableSource
from tasklogs.agent.sources.redacted_source import RedactedSource
from tasklogs.agent.sources.redaction import Redactor
from tasklogs.publish.source import Source


class AgentApi:
    """Watches an AgentAPI server beside the agent."""

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        """Raises UnusableSource."""
        if options.transcript is not None:
            raise UnusableSource("agentapi reads no file: name the source of --transcript")
        self._url = options.agentapi_url
        self._task_app = TaskApp(options.agentapi_url, settings)
        self._watch = Watch(self._task_app, settings, clock)
        redactor = Redactor(options.redact)
        self.feed: Source = RedactedSource(self._watch, redactor) if redactor else self._watch
        """What a session reads."""

    @property
    def place(self) -> str:
        """The task app's host and port."""
        # A URL may hold a password.
        return urlsplit(self._url).netloc.rpartition("@")[2]

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._watch.run()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._task_app.aclose()
