"""The API reference in Markdown, from the comments in the protos."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from tasklogs import features
from tools.docs import reasons
from tools.proto_paths import proto_paths

_INTRO = Path(__file__).with_name("api_intro.md")
# The path of numbers of fields and indices that leads to what a comment describes.
_Place: TypeAlias = tuple[int, ...]
_MESSAGES = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_ENUMS = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
_SERVICES = FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHODS = ServiceDescriptorProto.METHOD_FIELD_NUMBER
_FIELDS = DescriptorProto.FIELD_FIELD_NUMBER
_NESTED = DescriptorProto.NESTED_TYPE_FIELD_NUMBER
_NESTED_ENUMS = DescriptorProto.ENUM_TYPE_FIELD_NUMBER
_VALUES = EnumDescriptorProto.VALUE_FIELD_NUMBER
_Field = FieldDescriptorProto
_FEATURES_HEAD = "| name | what it means |\n| --- | --- |"
_METHODS_HEAD = "| method | HTTP | body | idempotency |\n| --- | --- | --- | --- |"


def reference(protos: Path) -> str:
    """Return the page for all files under `protos`."""
    files = [_File(one) for one in _parsed(protos)]
    # Services first, in whatever file they are: readers look for them.
    parts = [part for file in files for part in file.services()]
    parts.append(reasons.section())
    parts += [part for file in files for part in file.types()]
    rows = [row for file in files for row in file.method_rows()]
    intro = _INTRO.read_text().replace("{methods}", "\n".join([_METHODS_HEAD, *sorted(rows)]))
    intro = intro.replace("{features}", "\n".join([_FEATURES_HEAD, *_feature_rows()]))
    return "\n".join([intro, *parts]).rstrip() + "\n"


def _parsed(protos: Path) -> Sequence[FileDescriptorProto]:
    sources = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "descriptors.binpb"
        command = [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *proto_paths(protos),
            *("--include_source_info", f"--descriptor_set_out={target}"),
        ]
        subprocess.run([*command, *sources], check=True)
        return list(FileDescriptorSet.FromString(target.read_bytes()).file)


class _File:
    """One proto file, with its comments at hand."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(one.path): _plain(one.leading_comments or one.trailing_comments)
            for one in file.source_code_info.location
        }

    def services(self) -> Iterator[str]:
        """Yield each service with its methods."""
        for number, service in enumerate(self._file.service):
            yield f"## {service.name}\n"
            yield from self._text((_SERVICES, number))
            for index, method in enumerate(service.method):
                yield f"### {service.name}.{method.name}\n"
                yield f"{_signature(method)}\n"
                yield from self._text((_SERVICES, number, _METHODS, index))

    def method_rows(self) -> Iterator[str]:
        """Yield a row of a table for each method."""
        for service in self._file.service:
            for method in service.method:
                name = f"{service.name}.{method.name}"
                rule = method.options.Extensions[annotations_pb2.http]
                level = MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)
                cells = (
                    f"[{name}](#{name.lower().replace('.', '')})",
                    _http(rule),
                    f"`{rule.body}`" if rule.body else "",
                    level if method.options.idempotency_level else "",
                )
                yield f"| {' | '.join(cells)} |"

    def types(self) -> Iterator[str]:
        """Yield messages and enums in the file's order, nested ones after what holds them."""
        for number, message in enumerate(self._file.message_type):
            yield from self._message((_MESSAGES, number), message, message.name)
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum((_ENUMS, number), enum, enum.name)

    def _message(self, place: _Place, message: DescriptorProto, name: str) -> Iterator[str]:
        yield f"## {name}\n"
        yield from self._text(place)
        if message.field:
            yield "| field | type | |\n| --- | --- | --- |"
            for index, field in enumerate(message.field):
                about = self._cell((*place, _FIELDS, index))
                if _is_required(field):
                    about = f"Required. {about}"
                if field.HasField("oneof_index") and not field.proto3_optional:
                    about = f"{about} One of `{message.oneof_decl[field.oneof_index].name}`."
                yield f"| `{field.name}` | {_type(field)} | {about.strip()} |"
            yield ""
        for index, nested in enumerate(message.nested_type):
            yield from self._message((*place, _NESTED, index), nested, f"{name}.{nested.name}")
        for index, enum in enumerate(message.enum_type):
            yield from self._enum((*place, _NESTED_ENUMS, index), enum, f"{name}.{enum.name}")

    def _enum(self, place: _Place, enum: EnumDescriptorProto, name: str) -> Iterator[str]:
        yield f"## {name}\n"
        yield from self._text(place)
        yield "| value | number | |\n| --- | --- | --- |"
        for index, value in enumerate(enum.value):
            about = self._cell((*place, _VALUES, index))
            yield f"| `{value.name}` | {value.number} | {about} |"
        yield ""

    def _text(self, place: _Place) -> Iterator[str]:
        if comment := self._comments.get(place):
            yield f"{comment}\n"

    def _cell(self, place: _Place) -> str:
        return " ".join(self._comments.get(place, "").split()).replace("|", r"\|")


def _plain(comment: str) -> str:
    # protoc leaves the space after the slashes; a table is indented by three more.
    lines = [line.strip() for line in comment.strip("\n").splitlines()]
    return "\n".join(lines)


def _feature_rows() -> Iterator[str]:
    return (f"| `{name}` | {meaning} |" for name, meaning in features.ALL.items())


def _http(rule: http_pb2.HttpRule) -> str:
    verb = rule.WhichOneof("pattern")
    return "" if verb is None else f"`{verb.upper()} {getattr(rule, verb)}`"


def _is_required(field: FieldDescriptorProto) -> bool:
    behaviour = field.options.Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviour


def _signature(method: MethodDescriptorProto) -> str:
    takes = f"{'a stream of ' if method.client_streaming else ''}{_link(method.input_type)}"
    gives = f"{'a stream of ' if method.server_streaming else ''}{_link(method.output_type)}"
    return f"{takes} → {gives}"


def _type(field: FieldDescriptorProto) -> str:
    if field.type in (_Field.TYPE_MESSAGE, _Field.TYPE_ENUM):
        name = _link(field.type_name)
    else:
        name = _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(type_name: str) -> str:
    name = type_name.removeprefix(".tasklogs.v1.")
    if name.startswith("."):
        return name.removeprefix(".")  # google.protobuf's own
    # Anchors as GitHub makes them of headings.
    return f"[{name}](#{name.lower().replace('.', '')})"
