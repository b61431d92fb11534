"""What AgentAPI's refusals say is passed on: bounded, and only of a request that is wrong."""

from __future__ import annotations

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.client import TaskApp
from tasklogs.agent.sources.agentapi.faults import TaskAppError
from tests.support.fakes.http_server import HttpServer, Request, Response

HOSTS = b"Invalid host header. Allowed hosts: localhost, 127.0.0.1\n"
PROBLEM = b'{"title": "Bad Request", "status": 400, "detail": "no such host"}'
TEXT, JSON = "text/plain; charset=utf-8", "application/problem+json"


@pytest.mark.parametrize("where", ["/messages", "/events"])
@pytest.mark.parametrize(
    ("response", "said"),
    [
        (
            Response(400, HOSTS, TEXT),
            "HTTP 400 Bad Request: Invalid host header. Allowed hosts: localhost, 127.0.0.1",
        ),
        (Response(400, PROBLEM, JSON), "HTTP 400 Bad Request: no such host"),
        (Response(400, b"a\x1b]0;x\x07\nb", TEXT), "HTTP 400 Bad Request: a ]0;x b"),
        (Response(400, b"x" * 5000, TEXT), "HTTP 400 Bad Request"),
        (Response(400, b"[" * 4000, JSON), "HTTP 400 Bad Request"),
        (Response(400, b'{"detail": 1}', JSON), "HTTP 400 Bad Request"),
        (Response(404, b"<html>no</html>", "text/html"), "HTTP 404 Not Found"),
        (Response(500, PROBLEM, JSON), "HTTP 500 Internal Server Error"),
    ],
    ids=["text", "problem", "hostile", "long", "deep", "not text", "html", "5xx"],
)
async def test_the_reason_of_a_refusal_is_passed_on(
    where: str, response: Response, said: str
) -> None:
    async def refuse(_: Request) -> Response:
        return response

    server = HttpServer(refuse)
    await server.start()
    app = TaskApp(f"http://127.0.0.1:{server.port}", Settings())
    try:
        read = app.messages if where == "/messages" else app.burst
        with pytest.raises(TaskAppError) as error:
            await read()
    finally:
        await app.aclose()
        await server.stop()

    assert str(error.value) == f"{where}: {said}"
