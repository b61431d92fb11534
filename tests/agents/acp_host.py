"""A host of ACP agents: it drives one over standard input and output, and records both sides.

The record is what `--source acp` reads: one JSON-RPC message a line, of either side, in order.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MAX_LINE_BYTES = 8 * 1024 * 1024
_PROTOCOL_VERSION = 1


class AcpError(Exception):
    """The agent refused a request. `str()` is its own message."""


class AcpHost:
    """One connection to an agent's process. It allows what the agent asks permission for."""

    def __init__(self, process: Process, record: Path) -> None:
        self._process = process
        self._record = record
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 0
        self.said = asyncio.Event()
        """Set once the agent has said something of the answer to the last prompt."""

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def begin(self, work: Path, session: str | None) -> str:
        """Create a session, or load one. Returns its id. Raises AcpError."""
        capabilities = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        hello = {"protocolVersion": _PROTOCOL_VERSION, "clientCapabilities": capabilities}
        await self.ask("initialize", hello)
        if session is None:
            return await self.new_session(work)
        await self.ask("session/load", {"sessionId": session, **_place(work)})
        return session

    async def new_session(self, work: Path) -> str:
        """Create a session. Returns its id. Raises AcpError."""
        return str((await self.ask("session/new", _place(work)))["sessionId"])

    async def prompt(self, session: str, text: str) -> str:
        """Send a prompt. Returns why the turn ended. Raises AcpError."""
        self.said.clear()
        blocks = [{"type": "text", "text": text}]
        answer = await self.ask("session/prompt", {"sessionId": session, "prompt": blocks})
        return str(answer["stopReason"])

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request, and return its result. Raises AcpError."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        failure: Exception = AcpError("the agent has ended")
        try:
            async for line in self._process.stdout:
                message = json.loads(line)
                self._keep(message)
                self._take(message)
        except Exception as error:
            failure = error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(failure)
                answer.exception()  # nobody may be waiting

    def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"method": "session/request_permission", "id": request_id, "params": params}:
                [allowed] = [one for one in params["options"] if one["kind"] == "allow_once"]
                outcome = {"outcome": "selected", "optionId": allowed["optionId"]}
                answer = {"jsonrpc": "2.0", "id": request_id, "result": {"outcome": outcome}}
                self._send(answer)
            case {"method": str(method), "id": request_id}:
                error = {"code": -32601, "message": f"the host has no {method}"}
                self._send({"jsonrpc": "2.0", "id": request_id, "error": error})
            case {"params": {"update": {"sessionUpdate": "agent_message_chunk", "content": said}}}:
                if said["text"]:
                    self.said.set()
            case {"method": _}:
                pass
            case {"id": int(request_id), "error": error}:
                self._answers.pop(request_id).set_exception(AcpError(json.dumps(error)))
            case {"id": int(request_id), "result": result}:
                self._answers.pop(request_id).set_result(result)

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._keep(message)
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _keep(self, message: Mapping[str, Any]) -> None:
        with self._record.open("a") as file:
            file.write(json.dumps(message, ensure_ascii=False) + "\n")


def _place(work: Path) -> Mapping[str, Any]:
    return {"cwd": str(work), "mcpServers": []}
