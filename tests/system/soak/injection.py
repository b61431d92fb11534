"""Injects faults. Records of `faults.jsonl`:

began   number, name, parts, lets_calls_finish
ended   number, what, error (null: it went as planned)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from tests.system.soak.fault import Part, World
from tests.system.soak.journal import Journal
from tests.system.soak.schedule import Planned


class Injection:
    """Injects planned faults. A fault waits while another one affects the same part."""

    def __init__(self, world: World, journal: Journal, tell: Callable[[str], None]) -> None:
        self._world = world
        self._journal = journal
        self._tell = tell
        self._held = {part: asyncio.Lock() for part in Part}

    async def run(self, planned: Sequence[Planned], seconds: float, least_faults: int = 0) -> None:
        """Inject the planned faults. Returns when the time and the last fault are over.

        Recoveries take time, so faults may come later than planned, and the last ones may be
        left out, but no fewer than `least_faults` are injected.
        """
        began = time.monotonic()
        injected: list[tuple[Planned, asyncio.Task[float]]] = []
        async with asyncio.TaskGroup() as faults:
            faults.create_task(asyncio.sleep(seconds))
            for one in planned:
                at = began + one.at_seconds
                for before, injecting in injected:
                    # Keeps the planned quiet time between two faults, however long the first takes.
                    if (quiet_seconds := one.at_seconds - before.ends_seconds) >= 0:
                        at = max(at, await injecting + quiet_seconds)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                # In the order of the plan: the next fault does not begin while this one waits.
                holding = await self._take_hold(one)
                is_late = time.monotonic() > began + seconds
                if is_late and len(injected) >= least_faults:
                    await holding.aclose()
                    break
                injecting = faults.create_task(
                    self._inject(one, holding, began), name=one.fault.name
                )
                injected.append((one, injecting))

    async def _take_hold(self, one: Planned) -> AsyncExitStack:
        holding = AsyncExitStack()
        for part in Part:
            if part in one.fault.parts:
                await holding.enter_async_context(self._held[part])
        return holding

    async def _inject(self, one: Planned, holding: AsyncExitStack, began: float) -> float:
        """Inject one fault. Returns the time of its end."""
        fault = one.fault
        async with holding:
            self._journal.note(
                kind="began",
                number=one.number,
                name=fault.name,
                parts=sorted(part.name for part in fault.parts),
                lets_calls_finish=fault.lets_calls_finish,
            )
            at, error = time.monotonic(), None
            try:
                what = await fault.inject(self._world, random.Random(one.seed), one.seconds)
            except Exception as failure:
                what = error = f"failed: {failure!r}"
            self._journal.note(kind="ended", number=one.number, what=what, error=error)
        seconds = time.monotonic() - at
        self._tell(f"{at - began:8.1f} s  {fault.name:<24} {seconds:5.1f} s  {what}")
        return time.monotonic()
