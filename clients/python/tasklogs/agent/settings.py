"""How long the agent waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Lengths of time in seconds. The defaults are the contract's; tests take shorter ones."""

    fetch_patience_seconds: float = 1.0
    """`/messages` without an answer for so long: a fresh `/events` is opened as well."""
    sync_timeout_seconds: float = 10.0
    """The task app did not show its conversation in this time: the sync has failed."""
    probe_interval_seconds: float = 1.0
    """Between two attempts to reach a task app that refuses or fails."""
    unhealthy_after_seconds: float = 30.0
    """Nothing but refused connections and 5xx for so long: UNHEALTHY."""
    connect_timeout_seconds: float = 5.0
    """One TCP connection to the task app."""

    welcome_timeout_seconds: float = 15.0
    """From dialing the server to its Welcome."""
    backoff_first_seconds: float = 0.25
    """The first wait before the server is dialed again; each further one is twice as long."""
    backoff_cap_seconds: float = 5.0
    """The longest of those waits: a restarted server is found soon."""
    refused_cap_seconds: float = 60.0
    """The longest of those waits where the server took nothing of what was sent: the next stream
    sends the same."""
    asked_cap_seconds: float = 3600.0
    """The longest wait that the server may ask for: no mistake of its own sends agents away for
    good."""
    rotation_patience_seconds: float = 150.0
    """How long another token is waited for where the server refuses ours, and ours is in a file."""
    rotation_look_seconds: float = 1.0
    """Between two looks at that file."""
    superseded_wait_seconds: tuple[float, float] = (30.0, 60.0)
    """After another agent took over, so that two with one token do not fence each other for
    ever."""
    keepalive_seconds: float = 10.0
    """Between two pings to the server."""
    keepalive_timeout_seconds: float = 5.0
    """A ping without an answer for so long ends the connection."""

    goodbye_timeout_seconds: float = 8.0
    """From the signal to the server's confirmation. The process must end within 10 s."""
    goodbye_sync_seconds: float = 5.0
    """The last sync, so that a task app that is gone already does not cost the goodbye."""
