"""The time-outs and waits of a session with the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """All values are in seconds. The defaults are those of the contract; tests use shorter ones."""

    welcome_timeout_seconds: float = 15.0
    """The limit from dialing the server to its Welcome."""
    backoff_first_seconds: float = 0.25
    """The first wait before the server is dialed again. Each further wait is twice as long."""
    backoff_cap_seconds: float = 5.0
    """The longest of those waits, short enough to find a restarted server soon."""
    refused_cap_seconds: float = 60.0
    """The longest of those waits if the server accepted nothing that the stream sent. The next
    stream would send the same."""
    retry_after_cap_seconds: float = 3600.0
    """The longest wait that the server may ask for, so that a faulty server cannot keep agents away
    indefinitely."""
    rotation_timeout_seconds: float = 150.0
    """How long to wait for another token in the file after the server refused the token."""
    rotation_retry_seconds: float = 60.0
    """While it waits, the agent tries the refused token again about so often."""
    rotation_interval_seconds: float = 1.0
    """The interval at which that file is read."""
    superseded_wait_seconds: tuple[float, float] = (30.0, 60.0)
    """The wait after another agent took over, so that two agents with one token do not supersede
    each other all the time."""
    keepalive_seconds: float = 10.0
    """The interval of pings to the server."""
    keepalive_timeout_seconds: float = 5.0
    """A ping without a response in this time ends the connection."""

    goodbye_timeout_seconds: float = 8.0
    """The limit from the signal to the server's confirmation. The process must end within 10 s."""
    goodbye_sync_seconds: float = 5.0
    """The limit for the last sync: a task app that has exited must not delay the goodbye."""
