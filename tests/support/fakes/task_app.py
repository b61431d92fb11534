"""A task app that behaves like AgentAPI 0.12.1, and on demand shows faults that the real one has.

In a test:

    async with FakeTaskApp() as app:      # started; the list has one empty message
        app.become_ready()                # loads the saved state, if any, and says `stable`
        app.say("user", "hello")

As a program, for demos and for tests that kill it:

    python -m tests.support.fakes.task_app --port 3284 --state-file state.json
    curl -d '{"content": "hello", "type": "user"}' localhost:3284/message
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from tests.support.fakes.http_server import HttpServer, Request, Response

SUBSCRIPTION_EVENTS = 1024
BANNER = "Scripted agent. Type to talk.\n\n>"


@dataclass(frozen=True)
class Message:
    id: int
    content: str
    role: str
    time: str

    def as_event(self) -> bytes:
        body = {"id": self.id, "message": self.content, "role": self.role, "time": self.time}
        return sse("message_update", body)


class FakeTaskApp:
    """A task app on one port. For its peers, `restart` replaces the process."""

    def __init__(
        self,
        *,
        interval_seconds: float = 0.025,
        state_file: Path | None = None,
        acp: bool = False,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._state_file = state_file
        self._acp = acp
        self._http = HttpServer(self._handle)
        self._ticking: asyncio.Task[None] | None = None
        self._last_ns = 0
        self._subscribers: dict[int, asyncio.Queue[bytes | None]] = {}
        self._next_subscriber = 0
        # AgentAPI's lock: a POST holds it exclusively; `/messages` and `/status` wait for it.
        self._posting = asyncio.Lock()
        self.answers: Callable[[str], AsyncIterator[str]] | None = None
        self.fetches = 0
        self.agent_type = "custom"
        self.faults: dict[str, list[Callable[[Response], Awaitable[Response]]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._begin()

    def _begin(self) -> None:
        self.status = "running"
        self.messages: list[Message] = [] if self._acp else [Message(0, "", "agent", self._now())]
        self._next_id = len(self.messages)
        self._emitted: list[Message] = []
        self._emitted_status = "running"

    # --- the process

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.port}"

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._http.connections

    async def start(self, port: int = 0) -> None:
        await self._http.start(port or self._http.port)
        self._ticking = asyncio.create_task(self._tick_repeatedly())

    async def stop(self) -> None:
        for task in [*self._answering, *([self._ticking] if self._ticking else [])]:
            task.cancel()
            await asyncio.wait({task})
        self._ticking = None
        self._subscribers.clear()
        await self._http.stop()

    async def restart(self, *, with_state: bool, older_tail: str | None = None) -> None:
        """End this process and start another on the same port, which is not ready yet.

        older_tail: the last message comes back with this content and a time one second older.
        """
        await self.stop()
        if older_tail is not None:
            earlier = rfc3339(nanoseconds(self.tail.time) - 1_000_000_000)
            self.messages[-1] = replace(self.tail, content=older_tail, time=earlier)
        saved = list(self.messages)
        self._begin()
        self._saved = saved if with_state else []
        await self.start()

    def become_ready(self) -> None:
        """The screen looks ready: load the saved state, then report `stable`."""
        saved = self._saved or self._read_state()
        if saved:
            self.messages = saved
            self._next_id = saved[-1].id + 1
        self.status = "stable"

    _saved: list[Message] = []  # noqa: RUF012  (replaced, never changed)

    def save_state(self) -> None:
        if self._state_file is not None:
            written = self._state_file.with_suffix(".tmp")
            written.write_text(json.dumps([asdict(message) for message in self.messages]))
            written.replace(self._state_file)

    def _read_state(self) -> list[Message]:
        if self._state_file is None or not self._state_file.exists():
            return []
        return [Message(**message) for message in json.loads(self._state_file.read_text())]

    # --- the conversation

    @property
    def tail(self) -> Message:
        return self.messages[-1]

    def say(self, role: str, content: str) -> None:
        """Add a message."""
        self.messages.append(Message(self._next_id, content, role, self._now()))
        self._next_id += 1

    def grow(self, text: str) -> None:
        """Append to the last message. Over ACP its time stays."""
        self.redraw(self.tail.content + text)

    def redraw(self, content: str) -> None:
        """Replace the content of the last message."""
        at = self.tail.time if self._acp else self._now()
        self.messages[-1] = replace(self.tail, content=content, time=at)

    def show(self, message: Message) -> None:
        """Show a message as it is: the next one, or one that is shown already."""
        if message.id == len(self.messages):
            self.messages.append(message)
        else:
            self.messages[message.id] = message
        self._next_id = len(self.messages)

    def withdraw(self) -> None:
        """Remove the last message, as a failed prompt over ACP does. No event reports it."""
        self.messages.pop()
        self._emitted = self._emitted[: len(self.messages)]

    def start_over(self, *contents: str) -> None:
        """Start the ids over with other contents, in the same process."""
        self.messages = []
        self._next_id = 0
        for content in contents:
            self.say("agent", content)

    def _now(self) -> str:
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return rfc3339(self._last_ns)

    # --- events

    async def _tick_repeatedly(self) -> None:
        while True:
            if not self._posting.locked():
                self.tick()
            await asyncio.sleep(self._interval_seconds)

    def tick(self) -> None:
        """Emit what changed since the last tick: the status first, then the messages."""
        if self.status != self._emitted_status:
            self._emitted_status = self.status
            self._emit(status_event(self.status))
        emitted = self._emitted
        for index, message in enumerate(self.messages):
            if index >= len(emitted) or emitted[index] != message:
                self._emit(message.as_event())
        self._emitted = list(self.messages)

    def _emit(self, event: bytes) -> None:
        for key, queue in list(self._subscribers.items()):
            if queue.qsize() >= SUBSCRIPTION_EVENTS:
                # No error is sent: the response simply ends.
                del self._subscribers[key]
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def emit_stale(self, message: Message) -> None:
        """Emit an event that repeats an old state."""
        self._emit(message.as_event())

    def drop_subscribers(self) -> None:
        """End every event stream, as for a subscriber that is too slow. Connections close."""
        for queue in self._subscribers.values():
            queue.put_nowait(None)
        self._subscribers.clear()

    def drop_connections(self) -> None:
        """Reset every connection, also idle ones."""
        self._http.drop_connections()

    @property
    def subscribers(self) -> int:
        """How many event streams are open."""
        return len(self._subscribers)

    @property
    def queued(self) -> int:
        """How many events are not yet written to their subscribers."""
        return sum(queue.qsize() for queue in self._subscribers.values())

    @property
    def subscriptions(self) -> int:
        """How many event streams were opened so far."""
        return self._next_subscriber

    async def _subscribe(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        key, self._next_subscriber = self._next_subscriber, self._next_subscriber + 1
        burst = [message.as_event() for message in self._emitted]
        burst.append(status_event(self._emitted_status))
        self._subscribers[key] = queue
        try:
            for event in burst:
                yield event
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            self._subscribers.pop(key, None)

    # --- HTTP

    def fail_next(
        self, path: str, fault: Callable[[Response], Awaitable[Response]], times: int = 1
    ) -> None:
        """Apply `fault` to the next answers at `path`."""
        self.faults.setdefault(path, []).extend([fault] * times)

    @contextlib.asynccontextmanager
    async def handling_post(self) -> AsyncIterator[None]:
        """Hold the lock as a POST does: `/messages` and `/status` block, nothing is emitted."""
        async with self._posting:
            yield

    async def _handle(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/events":
                response = Response(content_type="text/event-stream", stream=self._subscribe())
            case "GET", "/messages":
                self.fetches += 1
                async with self._posting:
                    response = Response(body=self._messages_body())
            case "GET", "/status":
                async with self._posting:
                    body = {
                        "status": self.status,
                        "agent_type": self.agent_type,
                        "transport": "pty",
                    }
                    response = Response(body=json.dumps(body).encode())
            case "POST", "/message":
                response = await self._post(request)
            case _:
                response = Response(404, b'{"title":"Not Found","status":404}')
        faults = self.faults.get(request.path)
        return await faults.pop(0)(response) if faults else response

    def _messages_body(self) -> bytes:
        body = {
            "$schema": f"{self.url}/schemas/MessagesResponseBody.json",
            "messages": [asdict(message) for message in self.messages],
        }
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(
            errors="surrogatepass"
        )

    async def _post(self, request: Request) -> Response:
        try:
            body = json.loads(request.body)
            content, kind = body["content"], body["type"]
        except (ValueError, KeyError, TypeError):
            return Response(400, b'{"title":"Bad Request","status":400}')
        async with self._posting:
            if kind == "user":
                if self.status != "stable" or not content.strip():
                    return Response(500, b'{"title":"Internal Server Error","status":500}')
                await asyncio.sleep(self._interval_seconds)
                self.say("user", content)
                self.status = "running"
                if self.answers is not None:
                    task = asyncio.create_task(self._answer(self.answers(content)))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
        return Response(body=b'{"ok":true}')

    async def _answer(self, pieces: AsyncIterator[str]) -> None:
        self.say("agent", "")
        async for piece in pieces:
            self.grow(piece)
        self.status = "stable"


# --- faults that the real one does not show on demand


async def fails(response: Response) -> Response:
    """HTTP 500."""
    return Response(500, b'{"title":"Internal Server Error","status":500,"detail":"boom"}')


async def speaks_nonsense(response: Response) -> Response:
    """HTTP 200 with something that looks like content but is not JSON."""
    return Response(200, b'{"messages": [{"content": "a secret')


async def tears(response: Response) -> Response:
    """Break the connection in the middle of the body."""
    return replace_response(response, torn=len(response.body) // 2)


async def hangs(response: Response) -> Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


def with_role(role: str) -> Callable[[Response], Awaitable[Response]]:
    """Give the last message another role. AgentAPI shows an empty one in a torn read."""

    async def changes(response: Response) -> Response:
        body = json.loads(response.body)
        body["messages"][-1]["role"] = role
        return replace_response(response, body=json.dumps(body).encode())

    return changes


def replace_response(
    response: Response, *, body: bytes | None = None, torn: int | None = None
) -> Response:
    return Response(response.status, response.body if body is None else body, torn=torn)


# --- formats


def sse(event: str, body: dict[str, object]) -> bytes:
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=True)
    return f"event: {event}\ndata: {data}\n\n".encode()


def status_event(status: str) -> bytes:
    return sse("status_change", {"status": status, "agent_type": "custom"})


def rfc3339(nanoseconds: int) -> str:
    """Format a time as Go does: with nanoseconds, but without zeros at the end."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{at}{fraction}Z"


def nanoseconds(text: str) -> int:
    at, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(time.mktime(time.strptime(at, "%Y-%m-%dT%H:%M:%S"))) - time.timezone
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


# --- the program


async def demo_answer(prompt: str) -> AsyncIterator[str]:
    """Answer word by word, in about a second."""
    words = f"You said: {prompt}. I looked at it from every side, and this is what I found."
    for word in words.split(" "):
        await asyncio.sleep(1 / (words.count(" ") + 1))
        yield word + " "


async def serve(port: int, state_file: Path | None, boot_seconds: float) -> None:
    app = FakeTaskApp(state_file=state_file)
    app.answers = demo_answer
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, app.save_state)
    await app.start(port)
    print(f"task app on {app.url}", flush=True)  # noqa: T201
    app.redraw(BANNER)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), boot_seconds)
    app.become_ready()
    await ended.wait()
    app.save_state()
    await app.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="A fake task app that speaks AgentAPI's protocol.")
    parser.add_argument("--port", type=int, default=3284)
    parser.add_argument("--state-file", type=Path)
    parser.add_argument("--script", choices=["demo"], default="demo", help="how it answers")
    parser.add_argument("--boot-seconds", type=float, default=0.3, help="time until it is ready")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.state_file, arguments.boot_seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
