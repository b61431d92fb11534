"""Prints the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.soak.verdict import Verdict

_SHOWN_PER_KIND = 5


def lines(verdict: Verdict) -> Iterator[str]:
    """Yield a short table, and one line for each of the first findings of every kind."""
    figures = verdict.figures
    yield ""
    yield f"{figures.states} states shown"
    yield f"{figures.entries} entries stored in {figures.epochs} epochs"
    yield f"{figures.appends} appends sent, {figures.acknowledged} acknowledged"
    yield f"{figures.events} events followed"
    yield (
        f"{figures.kills} kills of agent and task app together,"
        f" {figures.judged_kills} of them without another fault"
    )
    if figures.failovers:
        yield (
            f"{figures.failovers} failovers without {figures.endangered_appends} acknowledged"
            f" appends; {figures.lost_appends} of these are missing in the end"
        )
    for outcome, count in figures.reads.items():
        yield f"{count:8} reads: {outcome}"
    yield f"{figures.slowest_read_seconds:8.2f} s the slowest read"
    yield (
        f"{figures.longest_gap_seconds:8.2f} s the longest delay from task app to store"
        f" ({figures.longest_gap})"
    )
    yield f"{figures.longest_quiet_gap_seconds:8.2f} s the longest delay with no fault near"
    yield f"{figures.calm_reads:8} reads while all was well"
    for name, (most, last, tasks) in figures.servers.items():
        yield f"{name}: at most {most:.0f} MB; when idle {last:.0f} MB and {tasks} tasks"
    yield ""
    for kind, count in verdict.counts().items():
        yield f"{count:8} {kind.value}"
    for kind in verdict.counts():
        found = [finding for finding in verdict.findings if finding.kind is kind]
        for finding in found[:_SHOWN_PER_KIND]:
            yield f"  {finding}"
        if len(found) > _SHOWN_PER_KIND:
            yield f"  ... and {len(found) - _SHOWN_PER_KIND} more"
    yield ""
    yield "good" if verdict.is_good else "BAD"
