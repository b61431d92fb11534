"""What an agent takes to send a long list of entries: its own CPU time, without a server."""

from __future__ import annotations

import time

from bench.result import Result, compared
from bench.rounds import Contestant, Slice, interleave
from bench.stage import Stage
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.publish.differ import Differ

_SHORT = 100_000
_TIMES = 4
_APPEND_BYTES = 256 * 1024
_ROUNDS = 5


async def long_lists(stage: Stage) -> list[Result]:
    """Entries of 16 characters. The list of 400,000 is four times as long as the other."""
    short = _SHORT // 100 if stage.quick else _SHORT
    entries = [_entry(number) for number in range(_TIMES * short)]

    def taking(count: int) -> Contestant:
        return Contestant(_rate(entries[:count]))

    rounds = await interleave(
        {"long": taking(_TIMES * short), "short": taking(short)}, min(stage.rounds, _ROUNDS)
    )
    return [
        compared(
            f"agent: taking a list of {_TIMES * short:,} entries (ours) and of {short:,} (bare)",
            rounds.compare_times("long", "short", per_second=1000),
            unit="ms",
            target=5,
            at_most=True,
            note="CPU time until every entry is in an append",
        )
    ]


def _rate(entries: list[Entry]) -> Slice:
    async def run() -> float:
        began = time.process_time()
        differ = Differ(Position(), process=1)
        differ.show_list(entries, process=1)
        sent = 0
        while (append := differ.next_append(_APPEND_BYTES)) is not None:
            sent += len(append.entries)
        assert sent == len(entries)
        return 1 / (time.process_time() - began)

    return run


def _entry(number: int) -> Entry:
    type_ = EntryType.INPUT if number % 2 else EntryType.OUTPUT
    return Entry(number, type_, Time(1000 + number, 5), f"entry {number:10}".encode())
