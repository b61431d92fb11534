"""The attackers' process: `python -m tests.system.hostile.attacker`. Its orders come on stdin.

One order is one JSON line. {"target": {...}, "behaviours": [...], "share": 0.15} starts an attack.
{} ends it; the answer is a summary of each behaviour's connections. The process takes only `share`
of one CPU.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from tests.system.hostile.behaviours import BEHAVIOURS
from tests.system.hostile.peer import Pace, Tally
from tests.system.hostile.target import Target


class Attack:
    """Some behaviours at the same time."""

    def __init__(self, target: Target, names: list[str], share: float) -> None:
        pace = Pace(share)
        self._tallies = {name: Tally(pace=pace) for name in names}
        self._tasks = {
            name: asyncio.create_task(_as_told(BEHAVIOURS[name](target, tally)), name=name)
            for name, tally in self._tallies.items()
        }

    async def end(self) -> Mapping[str, Any]:
        """Close everything. Raises the error that a behaviour failed with, if any did."""
        said = {name: _told(tally) for name, tally in self._tallies.items()}
        for task in self._tasks.values():
            task.cancel()
        await asyncio.wait(self._tasks.values())
        for task in self._tasks.values():
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return said


async def _as_told(behaviour: Any) -> None:
    await behaviour


def _told(tally: Tally) -> Mapping[str, Any]:
    return {
        "opened": tally.opened,
        "held": len(tally.held),
        "ended": tally.ended_by_the_server,
        "longest_seconds": tally.longest_seconds,
        "sent": tally.sent,
        "sent_bytes": tally.sent_bytes,
        "ends": dict(tally.ends),
    }


async def main() -> None:
    loop = asyncio.get_running_loop()
    attack: Attack | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        answer: Mapping[str, Any] = {}
        if told:
            attack = Attack(Target.from_json(told["target"]), told["behaviours"], told["share"])
        elif attack is not None:
            answer, attack = await attack.end(), None
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
