"""AgentAPI as a source of the agent."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.client import TaskApp
from tasklogs.agent.sources.agentapi.watch import Watch
from tasklogs.agent.sources.options import SourceOptions


class AgentApi(Watch):
    """Watches an AgentAPI server beside the agent."""

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._url = options.agentapi_url
        self._task_app = TaskApp(options.agentapi_url, settings)
        super().__init__(self._task_app, settings, clock)

    @property
    def place(self) -> str:
        """The task app's host and port."""
        # A URL may hold a password.
        return urlsplit(self._url).netloc.rpartition("@")[2]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._task_app.aclose()
