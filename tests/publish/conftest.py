"""The fixtures of the agent's tests: a session is tested inside of a whole agent."""

from __future__ import annotations

from tests.agent.conftest import app, server

__all__ = ["app", "server"]
