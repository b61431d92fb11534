"""The real `tasklogs agent` with a record of its stream: what it sent and what was acknowledged.

Records of `wire.jsonl`, each with the pid of its process and the number of its stream:

    hello
    welcome   epoch, entries, revision, tail: [id, bytes, sha256] or null
    append    sequence, open_epoch, withdraw_tail, tail: [id, [[from, bytes, text], ...]] or null,
              entries: [[id, type, content], ...]
    ack       sequence
    sync, sync_done, sync_failed   id
    goodbye
    end
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import grpc

from tasklogs import compression, delta_codec
from tasklogs.publish import carrier
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.task_agents_pb2_grpc import TaskAgentsStub
from tests.system.soak import moved_clock
from tests.system.soak.journal import Journal

DIRECTORY_VARIABLE = "SOAK_DIRECTORY"
CLOCK = "clock"


class _RecordedCall:
    """A call of `Connect` that records each message before it is sent and after it is received."""

    def __init__(self, call: Any, journal: Journal, stream: int) -> None:
        self._call = call
        self._journal = journal
        self._who = {"pid": os.getpid(), "stream": stream}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def write(self, message: pb.AgentMessage) -> None:
        if (fields := _sent(message)) is not None:
            self._journal.note(**fields, **self._who)
        await self._call.write(message)

    async def read(self) -> Any:
        try:
            message = await self._call.read()
        except BaseException:
            self._journal.note(kind="end", **self._who)
            raise
        if message is grpc.aio.EOF:
            self._journal.note(kind="end", **self._who)
        elif (fields := _heard(message)) is not None:
            self._journal.note(**fields, **self._who)
        return message


def _sent(message: pb.AgentMessage) -> dict[str, Any] | None:
    if message.HasField("compressed"):
        message = pb.AgentMessage.FromString(compression.expanded(message.compressed))
    kind = message.WhichOneof("message")
    if kind in ("sync_done", "sync_failed"):
        return {"kind": kind, "id": getattr(message, kind).id}
    if kind != "append":
        return None if kind == "state" else {"kind": kind}
    append = message.append
    tail = append.tail
    return {
        "kind": "append",
        "sequence": append.sequence,
        "open_epoch": append.open_epoch,
        "withdraw_tail": append.withdraw_tail,
        "tail": [tail.id, _pieces(tail)] if append.HasField("tail") else None,
        "entries": [[one.id, one.type, one.content] for one in append.entries],
    }


def _pieces(tail: pb.TailDelta) -> list[tuple[int, int, str]]:
    pieces = delta_codec.decode(tail.content).pieces
    return [(start, length, text.decode()) for start, length, text in pieces]


def _heard(message: pb.ServerMessage) -> dict[str, Any] | None:
    match message.WhichOneof("message"):
        case "welcome":
            welcome = message.welcome
            tail = welcome.tail
            return {
                "kind": "welcome",
                "epoch": welcome.epoch,
                "entries": welcome.entries,
                "revision": welcome.revision,
                "tail": [tail.id, tail.content_bytes, tail.content_sha256.hex()]
                if welcome.HasField("tail")
                else None,
            }
        case "ack":
            return {"kind": "ack", "sequence": message.ack.sequence}
        case "sync":
            return {"kind": "sync", "id": message.sync.id}
        case "drain":
            return {"kind": "drain"}
        case _:
            return None


def main(argv: list[str]) -> int:
    """Run `tasklogs agent` with `argv`. A variable names the directory of its workspace."""
    directory = Path(os.environ[DIRECTORY_VARIABLE])
    moved_clock.follow(directory / CLOCK)
    journal = Journal(directory / "wire.jsonl")
    streams = 0

    class RecordedStub:
        def __init__(self, channel: grpc.aio.Channel) -> None:
            self._stub = TaskAgentsStub(channel)

        def Connect(self, *arguments: Any, **options: Any) -> _RecordedCall:
            nonlocal streams
            streams += 1
            return _RecordedCall(self._stub.Connect(*arguments, **options), journal, streams)

    # Apart from its clock, this is the only place where the agent differs from a deployed one.
    assert vars(carrier)["TaskAgentsStub"] is TaskAgentsStub, "nothing would be recorded"
    vars(carrier)["TaskAgentsStub"] = RecordedStub
    from tasklogs.cli.main import main as command

    sys.argv = ["tasklogs", "agent", *argv]
    command()
    return 0
