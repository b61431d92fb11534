"""What must hold of an agent after its bad hour."""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.agent_hour.run import MIB, Outcome

GROWTH_BYTES = 12 * MIB
"""What the allocator may keep beside the conversation, which the agent holds."""


def broken(outcome: Outcome, *, growth: float = GROWTH_BYTES) -> Iterator[str]:
    """Yield what does not hold."""
    if outcome.exit_code != 0:
        yield f"the exit code is {outcome.exit_code}"
    if not outcome.said_goodbye:
        yield "there was no goodbye"
    if outcome.stored != outcome.shown:
        yield f"{len(outcome.stored)} of {len(outcome.shown)} messages are stored, or others"
    if outcome.epochs != 1:
        yield f"the conversation was stored {outcome.epochs} times"
    if "records.lost" not in outcome.log:
        yield "the log does not say that records were lost"
    if "Traceback" in outcome.log:
        yield "the log has a traceback"
    yield from (f"the server refused an append: {one}" for one in outcome.failures)
    tenth = max(1, len(outcome.rss_bytes) // 10)
    grown = max(outcome.rss_bytes[-tenth:]) - max(outcome.rss_bytes[:tenth])
    if grown > growth:
        yield f"memory grew by {grown / MIB:.1f} MiB"
