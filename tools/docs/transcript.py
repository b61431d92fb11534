"""One short session of the agent stream, byte by byte, for docs/agent-stream.md."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2

TIME = Timestamp(seconds=1_790_000_000)
_BYTES_PER_LINE = 12
_MIB = 1024 * 1024
_UNPACKED = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE)


@dataclass(frozen=True)
class Said:
    """One message, and what to notice about it."""

    by_agent: bool
    message: Message
    note: str


def session() -> list[Said]:
    """Return the messages in their order."""
    return [
        _agent("introduces itself.", hello=pb.Hello(agent_version="1.0", task_app="mine")),
        _server("has nothing of this task yet: epoch 0, no tail.", welcome=_welcome()),
        _agent("reports READY and HEALTHY.", state=_ready()),
        _agent(
            "opens the first epoch with one entry. The id 0 is written too.",
            append=pb.LogAppend(
                sequence=1, open_epoch=True, entries=[_entry(0, 1, "What is 6 times 7?")]
            ),
        ),
        _server("has committed it.", ack=pb.Ack(sequence=1)),
        _agent(
            "adds the answer, which still grows. It is the tail now.",
            append=pb.LogAppend(sequence=2, entries=[_entry(1, 2, "It is")]),
        ),
        _server("has committed it.", ack=pb.Ack(sequence=2)),
        _agent(
            "sends the growth alone: the first 5 bytes of the base, then a text.",
            append=pb.LogAppend(sequence=3, tail=_growth()),
        ),
        _server("has committed it.", ack=pb.Ack(sequence=3)),
        _agent(
            "leaves. The server closes the stream with OK.",
            goodbye=pb.Goodbye(reason=pb.Goodbye.REASON_STOPPING),
        ),
    ]


def text() -> str:
    """Return the session as annotated bytes, in a code block."""
    lines = ["```text"]
    for said in session():
        who = "agent" if said.by_agent else "server"
        encoded = said.message.SerializeToString(deterministic=True)
        lines.append(f"{who} {said.note}")
        lines += _hex_lines(b"\0" + len(encoded).to_bytes(4), f"gRPC: {len(encoded)} bytes", 0)
        written = list(_annotated(said.message, 0))
        assert b"".join(part for part, _, _ in written) == encoded
        for part, comment, depth in written:
            lines += _hex_lines(part, comment, depth)
        lines.append("")
    return "\n".join([*lines[:-1], "```"])


def _agent(note: str, **case: Any) -> Said:
    return Said(True, pb.AgentMessage(**case), note)


def _server(note: str, **case: Any) -> Said:
    return Said(False, pb.ServerMessage(**case), note)


def _ready() -> pb.StateReport:
    return pb.StateReport(
        lifecycle=types_pb2.AGENT_LIFECYCLE_READY, app_health=types_pb2.APP_HEALTH_HEALTHY
    )


def _welcome() -> pb.Welcome:
    return pb.Welcome(
        session=1,
        limits=pb.Welcome.Limits(window_bytes=4 * _MIB, append_bytes=2 * _MIB, entry_bytes=_MIB),
        digest=bytes(32),
        features=["content_delta_pieces", "entry_names"],
        entry_types=[number for number in types_pb2.TaskLogType.values() if number],
    )


def _entry(id_: int, type_: int, content: str) -> types_pb2.TaskLogEntry:
    return types_pb2.TaskLogEntry(
        id=id_, type=types_pb2.TaskLogType.ValueType(type_), time=TIME, content=content
    )


def _growth() -> pb.TailDelta:
    delta = pb.TailDelta(id=1, time=TIME)
    delta.content.pieces.add(bytes=5, text=" 42.")
    delta.content.crc32 = zlib.crc32(b"It is 42.")
    return delta


def _annotated(message: Message, depth: int) -> Iterator[tuple[bytes, str, int]]:
    """Yield the bytes of each field, what they are, and how deep they lie."""
    for field, value in sorted(message.ListFields(), key=lambda pair: pair[0].number):
        packed = field.is_repeated and field.cpp_type not in _UNPACKED
        for one in [value] if packed or not field.is_repeated else value:
            alone = type(message)()
            if field.message_type is not None:
                encoded = one.SerializeToString(deterministic=True)
                head = _varint(field.number << 3 | 2) + _varint(len(encoded))
                yield head, f"{field.name}, {len(encoded)} bytes", depth
                yield from _annotated(one, depth + 1)
                continue
            if field.is_repeated:
                getattr(alone, field.name).extend(one if packed else [one])
            else:
                setattr(alone, field.name, one)
            yield alone.SerializeToString(), f"{field.name} = {_shown(field, one)}", depth


def _shown(field: FieldDescriptor, value: Any) -> str:
    if field.is_repeated and not isinstance(value, str):
        return ", ".join(_shown_one(field, one) for one in value)
    return _shown_one(field, value)


def _shown_one(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        name = str(field.enum_type.values_by_number[value].name)
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return name.removeprefix(prefix)
    if field.name == "crc32":
        return f"{value:#x}, little-endian"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _hex_lines(part: bytes, comment: str, depth: int) -> list[str]:
    pieces = [part[at : at + _BYTES_PER_LINE] for at in range(0, len(part), _BYTES_PER_LINE)]
    comments = [comment] + [""] * (len(pieces) - 1)
    return [
        f"  {'  ' * depth + piece.hex(' '):<46}{about}".rstrip()
        for piece, about in zip(pieces, comments, strict=True)
    ]
