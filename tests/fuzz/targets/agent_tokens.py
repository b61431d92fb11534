"""The `authorization` header of an agent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import ClassVar
from uuid import UUID

from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tasklogs_server.middleware.authentication import Authentication, local
from tasklogs_server.middleware.methods import method_of
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.calls import Call, agent_tokens

_METHOD = "/tasklogs.v1.TaskAgents/Connect"
_TASKS = tuple(UUID(int=number << 100 | number) for number in range(1, 4))


class AgentTokens(Target):
    """Values of the header. Only the exact token of a task gives access to that task."""

    name: ClassVar[str] = "agent_tokens"
    max_bytes: ClassVar[int] = 1024
    tokens: ClassVar[Sequence[bytes]] = (
        *(b"Bearer ", b"bearer ", b"tla_", b"_", b"urn:uuid:", b"{", b"}", b"-", b"0x", b" "),
        *(b"\xc3\x9f", b"\xed\xa0\x80", b"\xe2\x80\xa8"),
    )

    def __init__(self) -> None:
        self._loop = Loop()
        self._given = {
            f"tla_{task_id.hex}_{hashlib.sha256(task_id.bytes).hexdigest()}": task_id
            for task_id in _TASKS
        }
        hashes = {
            task_id: hashlib.sha256(token.encode()).digest()
            for token, task_id in self._given.items()
        }
        without_limit = Allowance(calls_per_second=1e9, calls_at_once=10**9, connects_at_once=10**9)
        limits = CallerLimits(without_limit, clock=lambda: 0.0)
        authentication = Authentication(local, agent_tokens(hashes), limits)
        self._authenticate = authentication.of(method_of(_METHOD).rule, is_stream=True)

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        tokens = [token.encode() for token in self._given]
        for token in tokens:
            yield b"Bearer " + token
            yield b"bearer  " + token + b" "
        first, second = tokens[:2]
        yield first
        yield b"Bearer " + first[:-1]
        yield b"Bearer " + first[:37] + second[37:]
        yield b"Bearer " + first + b"\nBearer " + second
        yield b"Bearer tla_" + b"0" * 32 + b"_" + first[37:]
        yield b"Bearer " + first.upper()
        yield b"Bearer eyJhbGciOiJub25lIn0.e30."
        yield b""

    def run(self, data: bytes) -> None:
        call = Call(data)
        try:
            caller = self._loop.run(self._authenticate(call.as_context()))
        except Unauthenticated:
            return
        assert isinstance(caller, Agent)
        [value] = call.values
        scheme, _, brought = value.partition(" ")
        assert scheme.lower() == "bearer"
        assert self._given[brought.strip()] == caller.task_id
