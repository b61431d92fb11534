"""The API of tomorrow: today's descriptors and more, in a descriptor pool of its own.

Each message has one more field (`tomorrow`), and each enum one more value. Each oneof to which
later versions may add cases has one more case. Tests make messages of these types and send their
bytes. A message of today keeps the bytes that it does not know, so that the fakes and stubs of the
other tests can send them too: `as_today`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

PACKAGE = "tasklogs.v1"
NEW_FIELD = "tomorrow"
"""The field that each message of tomorrow has, a string."""
NEW_NUMBER = 99
"""The number of the value that each enum has, also of the new field and the new cases."""
ENTRY_FIELD_NUMBER = 9
"""The number of an entry's new field. The content, 15, stays the last."""
_Field = descriptor_pb2.FieldDescriptorProto

# The name of the case that is added to each of these oneofs. Its message has one field, a string.
NEW_CASES = {
    ("AgentMessage", "message"): "whisper",
    ("ServerMessage", "message"): "nudge",
    ("TailDelta", "form"): "lines",
    ("FollowTaskLogsResponse", "event"): "pinned",
    ("EntryDelta", "form"): "lines",
}
# Parts of a later version that no case of a oneof announces: an append's, and a whole upload's.
NEW_PARTS = {"LogAppend": "attachments", "UploadLogSnapshotRequest": "attachments"}


def make(name: str, **fields: Any) -> Any:
    """Return a message of tomorrow, for instance `make("LogAppend", sequence=1)`."""
    return _kind(name)(**fields)


def grown(message: Message) -> Any:
    """Return `message` as tomorrow sends it: it and every message in it have the new field."""
    copy = _kind(message.DESCRIPTOR.full_name.removeprefix(f"{PACKAGE}."))()
    copy.ParseFromString(message.SerializeToString())
    for part in _parts(copy):
        setattr(part, NEW_FIELD, "a field of tomorrow")
    return copy


def as_today(message: Message, kind: type[M]) -> M:
    """Return the same bytes as a message of today."""
    return kind.FromString(message.SerializeToString())


def seen_by_tomorrow(message: Message) -> Any:
    """Return a message that today's code made, as a peer of tomorrow reads it."""
    name = message.DESCRIPTOR.full_name.removeprefix(f"{PACKAGE}.")
    return _kind(name).FromString(message.SerializeToString())


def _kind(name: str) -> Any:
    descriptor = _pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


def _parts(message: Any) -> Iterator[Any]:
    """Yield the message and the messages of this API in it."""
    if message.DESCRIPTOR.file.package != PACKAGE:
        return
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in value if field.is_repeated else [value]:
            yield from _parts(part)


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    committed = resources.files("tasklogs.v1").joinpath("descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(committed).file:
        if file.package == PACKAGE:
            _grow_file(file)
        pool.Add(file)
    return pool


def _grow_file(file: descriptor_pb2.FileDescriptorProto) -> None:
    if file.name.endswith("/types.proto"):
        thing = file.message_type.add(name="ThingOfTomorrow")
        thing.field.add(name="text", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    for message in file.message_type:
        _grow_message(message)
    for enum in file.enum_type:
        _grow_enum(enum)


def _grow_message(message: descriptor_pb2.DescriptorProto) -> None:
    if message.options.map_entry:
        return
    for index, oneof in enumerate(message.oneof_decl):
        case = NEW_CASES.get((message.name, oneof.name))
        if case is not None:
            _add_thing(message, case, 98).oneof_index = index
    if message.name in NEW_PARTS:
        _add_thing(message, NEW_PARTS[message.name], 98)
    message.field.add(
        name=NEW_FIELD,
        number=ENTRY_FIELD_NUMBER if message.name == "TaskLogEntry" else NEW_NUMBER,
        type=_Field.TYPE_STRING,
        label=_Field.LABEL_OPTIONAL,
    )
    for nested in message.nested_type:
        _grow_message(nested)
    for enum in message.enum_type:
        _grow_enum(enum)


def _add_thing(message: descriptor_pb2.DescriptorProto, name: str, number: int) -> Any:
    return message.field.add(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{PACKAGE}.ThingOfTomorrow",
        label=_Field.LABEL_OPTIONAL,
    )


def _grow_enum(enum: descriptor_pb2.EnumDescriptorProto) -> None:
    prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
    enum.value.add(name=f"{prefix}TOMORROW", number=NEW_NUMBER)
