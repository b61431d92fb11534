"""Task apps that start over with fewer messages, other messages or an older save; that withdraw an
answer, hang or return nonsense."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.fakes.task_app import nanoseconds, rfc3339
from tests.system.soak.fault import Fault, Part, Workspace, World

Messages = list[dict[str, Any]]
"""A saved conversation, as tests.support.fakes.task_app writes it."""

_SAVE_SECONDS = 5.0
_OF_ALL = 0.2
_EARLIER_NANOSECONDS = 1_000_000_000
_LATER_NANOSECONDS = 1_000
_LOOK_EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class StartsOver:
    """Some task apps end, their saved state is changed, and they start again."""

    name: str
    change: Callable[[Messages, random.Random], Messages | None]
    """Returns the saved state after the change. None removes it."""
    is_killed: bool
    """Kill it, so that it does not save at the end and loads an older save."""

    parts = frozenset({Part.TASK_APPS})
    seconds = (1.0, 8.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        await asyncio.gather(
            *(self._start_over(one, random.Random(chance.random()), seconds) for one in chosen)
        )
        return f"{tasks_of(chosen)}: away {seconds:.1f} s"

    async def _start_over(
        self, workspace: Workspace, chance: random.Random, seconds: float
    ) -> None:
        try:
            if self.is_killed:
                await ordered(workspace, "save")
                await asyncio.sleep(seconds)  # it talks on, which is not saved
                await workspace.task_app.kill()
            else:
                await workspace.task_app.end()
                await asyncio.sleep(seconds)
            saved: Messages = []
            if workspace.state_file.exists():
                saved = json.loads(workspace.state_file.read_text())
            changed = self.change(saved, chance)
            if changed is None:
                workspace.state_file.unlink(missing_ok=True)
            else:
                workspace.state_file.write_text(json.dumps(changed))
        finally:
            await workspace.task_app.start()


def _as_saved(saved: Messages, _: random.Random) -> Messages:
    return saved


def _nothing(_: Messages, __: random.Random) -> None:
    return None


def _fewer(saved: Messages, chance: random.Random) -> Messages:
    return saved[: chance.randint(1, max(1, len(saved) - 1))]


def _others(saved: Messages, chance: random.Random) -> Messages:
    """Change all contents from a random message on. Ids and roles stay; times stay at random."""
    if not saved:
        return saved
    first = chance.randrange(len(saved))
    later = chance.choice([0, _LATER_NANOSECONDS])
    other = [
        {
            **one,
            "content": f"another {chance.getrandbits(64):x}: {one['content'][::-1]}",
            "time": rfc3339(nanoseconds(one["time"]) + later),
        }
        for one in saved[first:]
    ]
    return saved[:first] + other


def _older_tail(saved: Messages, chance: random.Random) -> Messages:
    """Return the last answer as it was earlier: a prefix of it, with the time of then if its time
    changed as it grew (over ACP the time stays)."""
    if not saved:
        return saved
    *sealed, tail = saved
    content = tail["content"][: chance.randint(0, len(tail["content"]))]
    earlier = nanoseconds(tail["time"]) - chance.choice([0, _EARLIER_NANOSECONDS])
    return [*sealed, {**tail, "content": content, "time": rfc3339(earlier)}]


class Withdraws:
    """Prompts fail, as over ACP: the answer in progress disappears without an event."""

    name = "answer-withdrawn"
    parts = frozenset({Part.TASK_APPS})
    seconds = (2.0, 10.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        withdrawn = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            withdrawn += await ordered(chance.choice(world.workspaces), "withdraw")
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return f"{withdrawn} orders to withdraw an answer: {seconds:.1f} s"


class Hangs:
    """A POST takes up to a minute, and `/messages` and `/status` block meanwhile."""

    name = "task-app-hangs"
    parts = frozenset({Part.TASK_APPS})
    seconds = (5.0, 60.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        for workspace in chosen:
            await ordered(workspace, "hang", seconds=seconds)
        await asyncio.sleep(seconds)
        return f"{tasks_of(chosen)}: {seconds:.1f} s"


class Misbehaves:
    """Answers with 5xx, nonsense, cut-off bodies or unknown roles."""

    name = "task-app-misbehaves"
    parts = frozenset({Part.TASK_APPS})
    seconds = (2.0, 10.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        orders = 0
        while loop.time() < until:
            how = chance.choice(("fails", "speaks_nonsense", "tears", "empty_role", "unknown_role"))
            orders += await ordered(
                chance.choice(chosen), "fail", path="/messages", how=how, times=chance.randint(1, 3)
            )
            await asyncio.sleep(chance.uniform(0.1, 1.0))
        return f"{orders} kinds of nonsense at /messages: {seconds:.1f} s"


def some(workspaces: Sequence[Workspace], chance: random.Random) -> Sequence[Workspace]:
    """Choose a fifth of them, at least one, in order."""
    count = max(1, round(_OF_ALL * len(workspaces)))
    return sorted(chance.sample(list(workspaces), count), key=lambda one: one.number)


def tasks_of(workspaces: Sequence[Workspace]) -> str:
    """Return the numbers of their tasks for the report of a fault."""
    return f"of task {', '.join(str(one.number) for one in workspaces)}"


async def ordered(workspace: Workspace, order: str, **arguments: Any) -> bool:
    """Give an order. Returns False if the task app is stopped or does not answer."""
    try:
        async with asyncio.timeout(_SAVE_SECONDS):
            await workspace.order(order, **arguments)
    except (httpx.HTTPError, TimeoutError):
        return False
    return True


FAULTS: tuple[Fault, ...] = (
    StartsOver("task-app-restarted", _as_saved, is_killed=False),
    StartsOver("task-app-older-save", _as_saved, is_killed=True),
    StartsOver("task-app-forgets", _nothing, is_killed=True),
    StartsOver("task-app-fewer-messages", _fewer, is_killed=False),
    StartsOver("task-app-other-messages", _others, is_killed=False),
    StartsOver("task-app-older-tail", _older_tail, is_killed=False),
    Withdraws(),
    Hangs(),
    Misbehaves(),
)
