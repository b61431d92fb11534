"""What a run must not show."""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.endurance.run import Record
from tests.system.hostile.verdict import UNEXPECTED

MOST_GROWTH = 1.1
# Connections to Postgres and threads are opened when they are first needed.
_FILES_MARGIN = 16


def broken(record: Record, *, growth: float = MOST_GROWTH) -> Iterator[str]:
    """Yield each bound that the run breaks, in words.

    `growth`: the most memory after the last tenth, as a multiple of that after the first.
    """
    for what, count in record.unexpected.most_common():
        yield f"{count} times: {what}"
    first, last = record.footprints[0], record.footprints[-1]
    if last.rss > first.rss * growth:
        yield f"{last.rss / 1e6:.1f} MB at the end, {first.rss / 1e6:.1f} MB after the first tenth"
    for name in ("files", "threads", "backends"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before + _FILES_MARGIN:
            yield f"{after} {name} at the end, {before} after the first tenth"
    for line in record.said:
        if any(word in line for word in UNEXPECTED):
            yield f"the server's log: {line}"
