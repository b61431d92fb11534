"""The agent's time-outs, intervals and waits."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.publish.settings import StreamSettings


@dataclass(frozen=True, slots=True)
class Settings(StreamSettings):
    """What a source needs, in addition to the session's. All values are in seconds."""

    fetch_fallback_seconds: float = 1.0
    """If `/messages` does not answer in this time, a new `/events` is opened as well."""
    sync_timeout_seconds: float = 10.0
    """A sync fails if the task app does not show its conversation in this time."""
    probe_timeout_seconds: float = 2.0
    """The limit for the question which agent AgentAPI runs, to choose a source."""
    probe_interval_seconds: float = 1.0
    """The interval of attempts to reach a task app that refuses connections or fails."""
    unhealthy_after_seconds: float = 30.0
    """The task app is UNHEALTHY after this time of nothing but refused connections and 5xx."""
    connect_timeout_seconds: float = 5.0
    """The limit for one TCP connection to the task app."""
    look_interval_seconds: float = 0.5
    """The interval at which a transcript is looked at, also where the system reports changes."""
