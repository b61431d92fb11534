"""A server that wants tokens, the issuer's key, and calls with a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklogs.v1 import tasks_pb2
from tests.fixtures.issuer import AUDIENCE, ISSUER, SigningKey, claims, new_key, publish
from tests.fixtures.server import MakeServer, Server

Metadata = tuple[tuple[str, str], ...]
ADMIN = "tasklogs:admin"


def bearing(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class Guarded:
    """A server with `--auth jwt`."""

    server: Server
    key: SigningKey
    jwks: Path

    def token(self, subject: str, **more: Any) -> str:
        return self.key.sign(claims(subject, **more))

    def as_(self, subject: str, **more: Any) -> Metadata:
        """The metadata of a call that `subject` makes."""
        return bearing(self.token(subject, **more))

    async def create(
        self, subject: str, name: str = "demo", **fields: Any
    ) -> tasks_pb2.CreateTaskResponse:
        return await self.server.tasks.CreateTask(
            tasks_pb2.CreateTaskRequest(name=name, **fields), metadata=self.as_(subject)
        )


@asynccontextmanager
async def guarded(
    make_server: MakeServer, directory: Path, **settings: Any
) -> AsyncIterator[Guarded]:
    key, jwks = new_key("one"), directory / "jwks.json"
    publish(jwks, key)
    settings = {
        "auth": "jwt",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwks_file": jwks,
    } | settings
    async with make_server(**settings) as server:
        yield Guarded(server, key, jwks)
