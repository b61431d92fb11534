"""The messages of the agent stream as they come: their size and their parts, then decoding.

protobuf decodes a message in one go: two million empty entries, which fit into 4 MiB, take 150 ms
and 300 MB. So what takes memory of its own is counted in the bytes before.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from google.protobuf.message import DecodeError

from tasklogs.compression import CannotExpand, Expansion
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import CompressedMessage
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.services.agent_codec import check_entries
from tasklogs_server.wire.deltas import check_pieces
from tasklogs_server.wire.fields import fields, undecodable

MAX_HELLO_BYTES = 4096
"""Of a Hello, which has a list of features. An agent's own has about a hundred."""

# Tags: field numbers and wire types.
_HELLO = 0x0A  # AgentMessage.hello
_APPEND = 0x12  # AgentMessage.append
_TAIL = 0x22  # LogAppend.tail
_ENTRIES = 0x2A  # LogAppend.entries
_CONTENT = 0x1A  # TailDelta.content
_PIECES = 0x0A  # ContentDelta.pieces

# So few bytes are decoded within a millisecond, whatever they are.
_SMALL_BYTES = 16 * 1024
# To walk over so many fields takes about a millisecond.
_WALKED_FIELDS = 1000
# Fields of a message besides its entries and pieces: a message of ours has a dozen.
_OTHER_FIELDS = 1000


def first_message(encoded: bytes) -> pb.AgentMessage:
    """Decode the first message of a stream. Raises InvalidFields."""
    _check_hello(len(encoded))
    return _decoded(encoded)


async def message(encoded: bytes, share: LoopShare) -> pb.AgentMessage:
    """Decode a message, and the one inside if it is compressed.

    Raises InvalidFields, and LimitExceeded for too many entries.
    """
    decoded = await _message(encoded, share)
    if not decoded.HasField("compressed"):
        return decoded
    inside = await _message(await _expanded(decoded.compressed, share), share)
    if inside.HasField("compressed"):
        raise _not_expanded("has a compressed message inside")
    return inside


async def _expanded(compressed: CompressedMessage, share: LoopShare) -> bytes:
    """Expand a message within its limit, in pieces that let other calls go on."""
    try:
        expansion = Expansion(compressed)
        expansion.step()
        while not expansion.is_whole:
            await share.run(expansion.step)
        return expansion.result()
    except CannotExpand as error:
        raise _not_expanded(str(error)) from None


def _not_expanded(why: str) -> InvalidFields:
    return InvalidFields([FieldViolation("compressed", why)])


async def _message(encoded: bytes, share: LoopShare) -> pb.AgentMessage:
    if len(encoded) > _SMALL_BYTES:
        try:
            await _count(encoded, share)
        except DecodeError:
            raise undecodable() from None
    return _decoded(encoded)


async def _count(encoded: bytes, share: LoopShare) -> None:
    """Count the parts of a message. Raises InvalidFields, LimitExceeded and DecodeError."""
    walk = _Parts(encoded).walk()
    # Most messages are large because of their texts, and have few parts.
    for _ in islice(walk, _WALKED_FIELDS):
        pass
    async for _ in share.take(walk, _WALKED_FIELDS):
        pass


class _Parts:
    """How many parts an encoded AgentMessage has. All appends in it are one, as for protobuf.

    All Hellos are one, too.
    """

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._hello_bytes = 0
        self._entries = 0
        self._pieces = 0
        self._others = 0

    def walk(self) -> Iterator[None]:
        """Count the parts, step by step. Raises what is wrong with them."""
        for tag, _, begin, end in fields(self._encoded, 0, len(self._encoded)):
            self._count_other()
            yield
            if tag == _HELLO:
                self._hello_bytes += end - begin
                _check_hello(self._hello_bytes)
            if tag == _APPEND:
                yield from self._append(begin, end)

    def _append(self, begin: int, end: int) -> Iterator[None]:
        for tag, _, field_begin, field_end in fields(self._encoded, begin, end):
            if tag == _ENTRIES:
                self._entries += 1
                check_entries(self._entries)
            else:
                self._count_other()
            yield
            if tag == _TAIL:
                yield from self._tail(field_begin, field_end)

    def _tail(self, begin: int, end: int) -> Iterator[None]:
        for tag, _, field_begin, field_end in fields(self._encoded, begin, end):
            self._count_other()
            yield
            if tag == _CONTENT:
                yield from self._content(field_begin, field_end)

    def _content(self, begin: int, end: int) -> Iterator[None]:
        for tag, *_ in fields(self._encoded, begin, end):
            if tag == _PIECES:
                self._pieces += 1
                check_pieces(self._pieces, "append.tail.content")
            else:
                self._count_other()
            yield

    def _count_other(self) -> None:
        self._others += 1
        if self._others > _OTHER_FIELDS:
            raise InvalidFields([FieldViolation("request", f"has over {_OTHER_FIELDS} fields")])


def _check_hello(size_bytes: int) -> None:
    if size_bytes > MAX_HELLO_BYTES:
        what = f"a Hello must have at most {MAX_HELLO_BYTES} bytes"
        raise InvalidFields([FieldViolation("request", what)])


def _decoded(encoded: bytes) -> pb.AgentMessage:
    try:
        return pb.AgentMessage.FromString(encoded)
    except DecodeError:
        raise undecodable() from None
