"""A real AgentAPI on a scripted terminal program, with a tireless user, as a task app of the soak.

The agent reaches it through this process, which passes every request on. Each change is recorded
in `shown.jsonl` (tests/system/soak/task_app.py has the format) before the agent gets it, and a
stream of this process's own sees the changes while no agent is connected. Of an AgentAPI that is
busy, the records lag by a moment: a live read counts as stale only if it is older than the records.

Orders, POST /order: {"order": "quiet"}, {"order": "save"}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.fakes.http_server import HttpServer, Request, Response
from tests.support.fixtures.ports import lasting_port
from tests.system.soak.journal import Journal
from tests.system.soak.spawner import die_with_parent

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests/system/end_to_end/scripted_terminal.py"
_NEEDED = "TASKLOGS_AGENTAPI"
_EXECUTABLE = Path(os.environ.get(_NEEDED, ROOT / ".tools/bin/agentapi"))

FAKES_ONLY = frozenset(
    {
        "answer-withdrawn",
        "task-app-fewer-messages",
        "task-app-hangs",
        "task-app-misbehaves",
        "task-app-older-tail",
        "task-app-other-messages",
    }
)
"""The kinds of faults that a real AgentAPI does not do on demand."""

_START_SECONDS = 20.0
_END_SECONDS = 10.0
_STATUS_SECONDS = 0.05
_OK = Response(body=b'{"ok":true}')


def executable() -> Path | None:
    """Return the AgentAPI of this machine. None: it has none."""
    return _EXECUTABLE if os.access(_EXECUTABLE, os.X_OK) else None


class Recorder:
    """Records the conversation that AgentAPI shows, change by change."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._shown: list[tuple[int, str, str]] = []
        self._known: set[tuple[int, str]] = set()
        self._is_ready = False

    def status(self, status: str) -> None:
        """`stable` for the first time: the saved state is loaded."""
        if status == "stable":
            self._become_ready()

    def listed(self, messages: list[dict[str, Any]]) -> None:
        """The answer of `/messages`: it is never older than an earlier one.

        An event may have overtaken it. A terminal's conversation loses no message, so a list of the
        first ones alone is older than what is shown.
        """
        listed = [(one["id"], one["role"], one["content"]) for one in messages]
        if listed != self._shown[: len(listed)]:
            self._show(listed)

    def updated(self, message: dict[str, Any], *, lags: bool) -> None:
        """An event about one message. `lags`: another stream may have shown later ones already."""
        new = message["id"], message["role"], message["message"]
        if lags and (new[0], new[2]) in self._known:
            return
        ids = [one[0] for one in self._shown]
        if new[0] in ids:
            at = ids.index(new[0])
            self._show([*self._shown[:at], new, *self._shown[at + 1 :]])
        else:
            self._show([*self._shown, new])

    def _show(self, shown: list[tuple[int, str, str]]) -> None:
        before, self._shown = self._shown, shown
        self._known.update((one[0], one[2]) for one in shown)
        if shown == before:
            return
        # A redraw tells the checks that it is the same message, a new list does not.
        if shown[:-1] == before:
            self._journal.note(kind="say", message=shown[-1])
        elif shown and shown[:-1] == before[:-1] and shown[-1][0] == before[-1][0]:
            self._journal.note(kind="redraw", content=shown[-1][2])
        else:
            self._journal.note(kind="list", messages=shown)
        # So does the agent conclude, too: AgentAPI may say `stable` later.
        if any(role == "user" for _, role, _ in shown):
            self._become_ready()

    def _become_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._journal.note(kind="ready")


class RealTaskApp:
    """One AgentAPI process, and the port on which the agent reaches it."""

    def __init__(self, arguments: argparse.Namespace, journal: Journal) -> None:
        self._arguments = arguments
        self._recorder = Recorder(journal)
        self._http = HttpServer(self._handle)
        self._port = lasting_port()
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._port}", timeout=90, trust_env=False
        )
        self._listing = asyncio.Lock()
        self.is_quiet: bool = arguments.quiet
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start AgentAPI, and listen once it answers."""
        parent = os.getpid()
        self.process = await asyncio.create_subprocess_exec(
            str(_EXECUTABLE),
            *("server", f"--port={self._port}"),
            f"--state-file={self._arguments.directory / 'state.json'}",
            *("--", sys.executable, str(PROGRAM)),
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(parent),
        )
        async with asyncio.timeout(_START_SECONDS):
            while await self._status() == "unreachable":  # noqa: ASYNC110 (another process)
                await asyncio.sleep(_STATUS_SECONDS)
        await self._http.start(self._arguments.port)

    async def end(self) -> None:
        """Let AgentAPI save its state and end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._http.stop()
        await self._client.aclose()

    async def watch(self) -> None:
        """Record what is shown while nobody else looks, until AgentAPI has ended."""
        with contextlib.suppress(httpx.HTTPError):
            async for _ in self._events(lags=False):
                pass

    async def converse(self, who: str, chance: random.Random) -> None:
        """Ask whenever the status is stable, until told to be quiet."""
        number = 0
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self._arguments.pause_seconds)
            if self.is_quiet or await self._status() != "stable":
                continue
            number += 1
            question = f"{who} question {number} {'and more ' * chance.randint(0, 12)}".strip()
            with contextlib.suppress(httpx.HTTPError):
                await self._client.post("/message", json={"content": question, "type": "user"})

    async def _status(self) -> str:
        try:
            answer = await self._client.get("/status")
        except httpx.HTTPError:
            return "unreachable"
        status = str(answer.json()["status"]) if answer.status_code == 200 else "failing"
        self._recorder.status(status)
        return status

    async def _handle(self, request: Request) -> Response:
        try:
            match request.path:
                case "/order":
                    return self._obey(json.loads(request.body)["order"])
                case "/events":
                    stream = self._events(lags=True)
                    return Response(content_type="text/event-stream", stream=stream)
                case "/messages":
                    async with self._listing:  # the records keep the order of the answers
                        return self._seen(request.path, await self._passed_on(request))
                case _:
                    return self._seen(request.path, await self._passed_on(request))
        except httpx.HTTPError:
            return Response(502)

    def _obey(self, order: str) -> Response:
        if order == "quiet":
            self.is_quiet = True
        elif order == "save":
            self.process.send_signal(signal.SIGUSR1)
        else:
            return Response(400)
        return _OK

    async def _passed_on(self, request: Request) -> Response:
        answer = await self._client.request(
            request.method,
            request.path,
            content=request.body,
            headers={"Content-Type": "application/json"},
        )
        kind = answer.headers.get("content-type", "application/json")
        return Response(answer.status_code, answer.content, kind)

    def _seen(self, path: str, answer: Response) -> Response:
        if answer.status == 200 and path == "/messages":
            self._recorder.listed(json.loads(answer.body)["messages"])
        elif answer.status == 200 and path == "/status":
            self._recorder.status(json.loads(answer.body)["status"])
        return answer

    async def _events(self, *, lags: bool) -> AsyncIterator[bytes]:
        """Pass on AgentAPI's events, each after its record."""
        wants = {"Accept": "text/event-stream"}
        async with self._client.stream("GET", "/events", headers=wants, timeout=None) as response:
            held = b""
            async for piece in response.aiter_raw():
                *events, held = (held + piece).split(b"\n\n")
                for event in events:
                    self._record(event, lags=lags)
                    yield event + b"\n\n"

    def _record(self, event: bytes, *, lags: bool) -> None:
        fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if ": " in line)
        if fields.get("event") == "message_update":
            self._recorder.updated(json.loads(fields["data"]), lags=lags)
        elif fields.get("event") == "status_change":
            self._recorder.status(json.loads(fields["data"])["status"])


async def _serve(arguments: argparse.Namespace) -> None:
    journal = Journal(arguments.directory / "shown.jsonl")
    journal.note(kind="start", number=arguments.start)
    journal.note(kind="list", messages=[])
    app = RealTaskApp(arguments, journal)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await app.start()
    chance = random.Random(f"{arguments.seed} {arguments.task} {arguments.start}")
    work = {
        asyncio.create_task(app.watch()),
        asyncio.create_task(app.converse(f"{arguments.task} start {arguments.start}", chance)),
    }
    ending = {asyncio.create_task(told.wait()), asyncio.create_task(app.process.wait())}
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    await app.end()
    for task in (*work, *ending):
        task.cancel()
    await asyncio.wait((*work, *ending))


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
