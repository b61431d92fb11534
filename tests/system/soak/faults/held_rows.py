"""A transaction of somebody else holds rows of some tasks, as an administrator's session may."""

from __future__ import annotations

import asyncio
import random

import asyncpg

from tests.system.soak.checks.held import HELD
from tests.system.soak.fault import Fault, Part, World

_HOLD = {
    "the task": "SELECT FROM tasks WHERE owner || '/' || name = $1 FOR UPDATE",
    "the head": """
        SELECT FROM log_heads h JOIN tasks t USING (task_id)
         WHERE t.owner || '/' || t.name = $1 FOR UPDATE OF h""",
    "entries": """
        SELECT FROM log_entries e JOIN tasks t USING (task_id)
         WHERE t.owner || '/' || t.name = $1 FOR UPDATE OF e""",
    "parts of the tail": """
        SELECT FROM log_tail_parts p JOIN tasks t USING (task_id)
         WHERE t.owner || '/' || t.name = $1 FOR UPDATE OF p""",
}


class RowsHeld:
    """Rows of up to a third of the tasks are locked. checks.held looks at the other tasks."""

    name = HELD
    parts = frozenset({Part.POSTGRES})
    seconds = (1.0, 20.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        tasks = [one.task for one in world.workspaces]
        chosen = chance.sample(tasks, chance.randint(1, max(1, len(tasks) // 3)))
        held = [(task, chance.choice(list(_HOLD))) for task in chosen]
        connection = await asyncpg.connect(world.postgres.dsn(), timeout=5.0)
        try:
            async with connection.transaction():
                for task, what in held:
                    await connection.execute(_HOLD[what], task)
                await asyncio.sleep(seconds)
        finally:
            await connection.close()
        return f"{seconds:.1f} s: " + ", ".join(f"{what} of {task}" for task, what in held)


FAULTS: tuple[Fault, ...] = (RowsHeld(),)
