"""What the models cost: times in seconds, measured on 30 November 2026 unless a comment says so.

docs/scaling.md says how each was measured, and how far the models are from real runs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Times of the models, in seconds of one core unless it is said otherwise."""

    # The network
    hop: float = 0.0002
    """One way between two machines of a data centre: assumed, not measured. Latency, no CPU."""
    hop_spread: float = 0.5
    """The sigma of its logarithm: the 99th percentile is 3.2 times the median."""

    # A server process
    payload: float = 25e-6
    """To receive a payload of the bus and to decode what is around its notes."""
    payload_byte: float = 0.045e-6
    """For each byte of its notes."""
    append: float = 160e-6
    """To receive an append and to send its ack."""
    commit: float = 20e-6
    """For each commit of a batch."""
    statement: float = 100e-6
    """To send a statement to Postgres and to take its answer."""
    handshake: float = 1e-3
    """To accept an agent's connection, its stream and its Hello."""
    message: float = 50e-6
    """To send a message to a follower or an agent."""
    audited: float = 1e-6
    """To send one session to the audit."""

    # Postgres, of one of its cores
    batch: float = 220e-6
    """A commit, without its rows."""
    batch_row: float = 26e-6
    """For each task in it."""
    flush: float = 1e-3
    """Until the WAL is on disk. No CPU. Commits at the same time share it."""
    read: float = 80e-6
    """A look-up by key: a read, or the state of a task."""
    open_session: float = 300e-6
    """The transaction that raises a fence."""
    audit_row: float = 5e-6
    """For each session in an audit: 24 to 40 ms for 5,000."""
    notify: float = 70e-6
    """A NOTIFY in a transaction of its own. One at a time: it holds a lock of the database."""
    notify_listener: float = 12e-6
    """For each connection that listens: Postgres wakes all, whatever their channels are."""

    # A NATS node
    delivery: float = 1.5e-6
    """For each payload to each subscriber."""
