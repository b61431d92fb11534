"""A task app with a tireless user. It records all that it shows, and when.

Records of `shown.jsonl`. Each is written before anybody can see the change:

    start     number: a process starts with an empty list
    list      messages: [[id, role, content], ...]: replaces the whole list
    say       message: [id, role, content], added at the end
    grow      text, added to the last message
    redraw    content of the last message
    withdraw  the last message is removed
    ready     the saved state is loaded, and the status is `stable`

Orders, POST /order: {"order": "quiet"}, {"order": "save"}, {"order": "withdraw"},
{"order": "hang", "seconds": 60}: block `/messages` and `/status` as during a POST,
{"order": "fail", "path": "/messages", "how": "fails", "times": 3}: the faults of fakes.task_app.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.fakes import task_app as fakes
from tests.support.fakes.http_server import Request, Response
from tests.support.fakes.task_app import BANNER, FakeTaskApp, Message
from tests.system.soak import moved_clock
from tests.system.soak.agent_process import CLOCK
from tests.system.soak.journal import Journal

BOOT_SECONDS = 0.3
# Twice the interval of the real one: ticks cost CPU time, and there may be fifty task apps.
_INTERVAL_SECONDS = 0.05
_FAULTS = {
    "fails": fakes.fails,
    "speaks_nonsense": fakes.speaks_nonsense,
    "tears": fakes.tears,
    "hangs": fakes.hangs,
    "empty_role": fakes.with_role(""),
    "unknown_role": fakes.with_role("system"),
}
_OK = Response(body=b'{"ok":true}')


class LedgeredTaskApp(FakeTaskApp):
    """Records each change of its list at the time when others can see it."""

    def __init__(self, journal: Journal, state_file: Path) -> None:
        self._journal = journal
        self._held: list[dict[str, Any]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_quiet = False
        super().__init__(interval_seconds=_INTERVAL_SECONDS, state_file=state_file)

    def _note(self, **fields: Any) -> None:
        if self._held is None:
            self._journal.note(**fields)
        else:
            # Neither `/messages` nor an event shows the change before the hang is over.
            self._held.append(fields)

    def become_ready(self) -> None:
        super().become_ready()
        self._note(kind="list", messages=[_row(message) for message in self.messages])
        self._note(kind="ready")

    def say(self, role: str, content: str) -> None:
        super().say(role, content)
        self._note(kind="say", message=_row(self.tail))

    def grow(self, text: str) -> None:
        FakeTaskApp.redraw(self, self.tail.content + text)
        self._note(kind="grow", text=text)

    def redraw(self, content: str) -> None:
        super().redraw(content)
        self._note(kind="redraw", content=content)

    def withdraw(self) -> None:
        super().withdraw()
        self._note(kind="withdraw")

    async def _handle(self, request: Request) -> Response:
        if request.path != "/order":
            return await super()._handle(request)
        return self._obey(json.loads(request.body))

    def _obey(self, order: dict[str, Any]) -> Response:
        match order["order"]:
            case "quiet":
                self.is_quiet = True
            case "save":
                self.save_state()
            case "withdraw":
                return self._fail_the_prompt()
            case "hang":
                task = asyncio.create_task(self._hang(order["seconds"]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "fail":
                self.fail_next(order["path"], _FAULTS[order["how"]], order["times"])
            case _:
                return Response(400)
        return _OK

    def _fail_the_prompt(self) -> Response:
        """Withdraw the answer in progress. Answers 500 if there is none."""
        if self.status != "running" or len(self.messages) < 2 or self.tail.role != "agent":
            return Response(500)
        for task in self._answering:
            task.cancel()
        self.withdraw()
        self.status = "stable"
        return _OK

    async def _hang(self, seconds: float) -> None:
        async with self.handling_post():
            # Record the last state that `/messages` shows before it blocks: `/events` would send
            # it only after the hang.
            self.tick()
            self._held = []
            await asyncio.sleep(seconds)
            held, self._held = self._held, None
            for fields in held:
                self._note(**fields)

    async def converse(self, who: str, chance: random.Random, pause_seconds: float) -> None:
        """Ask whenever the status is stable, until told to be quiet."""
        number = 0
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause_seconds)
            if self.status != "stable" or self.is_quiet:
                continue
            number += 1
            question = f"{who} question {number} {'and more ' * chance.randint(0, 20)}"
            body = json.dumps({"content": question, "type": "user"}).encode()
            await super()._handle(Request("POST", "/message", body))


def _row(message: Message) -> list[Any]:
    return [message.id, message.role, message.content]


class Answers:
    """Makes the answers. No two contents are alike over all starts of all tasks, and each state of
    a growing answer is a prefix of the final one."""

    def __init__(self, who: str, chance: random.Random) -> None:
        self._who = who
        self._chance = chance
        self._count = 0

    async def __call__(self, question: str) -> AsyncIterator[str]:
        self._count += 1
        yield f"{self._who} answer {self._count}: "
        for step in range(self._chance.randint(4, 14)):
            await asyncio.sleep(self._chance.uniform(0.02, 0.25))
            yield f"step {step} of what I found, {self._chance.randint(0, 10**9)}. "


async def _serve(arguments: argparse.Namespace) -> None:
    moved_clock.follow(arguments.directory / CLOCK)
    journal = Journal(arguments.directory / "shown.jsonl")
    journal.note(kind="start", number=arguments.start)
    chance = random.Random(f"{arguments.seed} {arguments.task} {arguments.start}")
    app = LedgeredTaskApp(journal, arguments.directory / "state.json")
    who = f"{arguments.task} start {arguments.start}"
    app.answers = Answers(who, chance)
    app.is_quiet = arguments.quiet
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    journal.note(kind="list", messages=[_row(message) for message in app.messages])
    await app.start(arguments.port)
    app.redraw(BANNER)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), BOOT_SECONDS)
    if not ended.is_set():
        app.become_ready()
        talking = asyncio.create_task(app.converse(who, chance, arguments.pause_seconds))
        await ended.wait()
        talking.cancel()
        await asyncio.wait({talking})
        app.save_state()
    await app.stop()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--pause-seconds", type=float, required=True)
    parser.add_argument("--quiet", action="store_true")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0
