"""A scripted model on loopback, for agents that run offline.

async with ModelServer({"What is 6 times 7?": [say("42")]}) as model:
    ...  # an agent that is told to use model.url
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import ModuleType, TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.model_server import anthropic, gemini, openai_chat, openai_responses
from tests.support.model_server.script import Asked, Reply, Script, answer

_GRACE_SECONDS = 2


class ModelServer:
    """Answers prompts of its script, and says something short to everything else."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self._script = script
        self._port = port
        self.asked: list[Asked] = []
        """What was asked so far, in order, with the answers."""
        self.unknown: list[str] = []
        """Paths that are no model's."""
        self.is_holding = asyncio.Event()
        """Set while a held answer stands in the middle of its last block."""
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def release(self) -> None:
        """Let held answers, this one and those to come, go on."""
        self._released.set()

    async def __aenter__(self) -> Self:
        config = uvicorn.Config(
            self._app(),
            port=self._port,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        socket = config.bind_socket()
        self._port = socket.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([socket]))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        self._server.should_exit = True
        await self._serving

    def _app(self) -> Starlette:
        count = JSONResponse({"input_tokens": 10, "totalTokens": 10})
        return Starlette(
            routes=[
                Route(anthropic.COUNT_PATH, count, methods=["POST"]),
                Route(anthropic.PATH, self._either(anthropic), methods=["POST"]),
                Route(openai_responses.PATH, self._either(openai_responses), methods=["POST"]),
                Route(openai_chat.PATH, self._either(openai_chat), methods=["POST"]),
                Route(gemini.STREAM_PATH, self._streaming(gemini), methods=["POST"]),
                Route(gemini.WHOLE_PATH, self._whole(gemini), methods=["POST"]),
                Route(gemini.COUNT_PATH, count, methods=["POST"]),
                Route("/{path:path}", self._nothing, methods=["GET", "POST", "HEAD"]),
            ]
        )

    def _either(self, protocol: ModuleType) -> Callable[[Request], Any]:
        """Answer in the way that the request asks for."""
        streaming, whole = self._streaming(protocol), self._whole(protocol)

        async def answered(request: Request) -> Response:
            is_streamed = protocol.asked(await request.json()).is_streamed
            response: Response = await (streaming if is_streamed else whole)(request)
            return response

        return answered

    def _streaming(self, protocol: ModuleType) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            body = await request.json()
            number, reply = self._note(protocol.asked(body))
            events = list(protocol.streamed(number, body, reply))
            return StreamingResponse(self._paced(events, reply), media_type="text/event-stream")

        return answered

    def _whole(self, protocol: ModuleType) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            body = await request.json()
            number, reply = self._note(protocol.asked(body))
            return JSONResponse(protocol.whole(number, body, reply))

        return answered

    def _note(self, asked: Asked) -> tuple[int, Reply]:
        asked.reply = answer(self._script, asked)
        self.asked.append(asked)
        return len(self.asked), asked.reply

    async def _paced(self, events: list[str], reply: Reply) -> AsyncIterator[str]:
        held_at = len(events) // 2 if reply.is_held else -1
        for at, event in enumerate(events):
            if at == held_at:
                self.is_holding.set()
                await self._released.wait()
                self.is_holding.clear()
            yield event

    async def _nothing(self, request: Request) -> Response:
        self.unknown.append(f"{request.method} {request.url.path}")
        return JSONResponse({"error": {"message": "the scripted model has no such path"}}, 404)
