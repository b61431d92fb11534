"""Reflection, and what it describes: the API, its error details, health, reflection."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import resources
from typing import Any

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

_V1ALPHA, _V1 = "grpc.reflection.v1alpha", "grpc.reflection.v1"
CHANNELZ = "grpc.channelz.v1.Channelz"
REFLECTION_V1 = f"{_V1}.ServerReflection"


class Reflection(reflection.aio.ReflectionServicer):
    """Answers from a pool. The library encodes a file, and all that it imports, for each answer."""

    def __init__(self, names: Collection[str]) -> None:
        self._files_of = pool = reflected_descriptors(names)
        self._answers: dict[str, Any] = {}
        super().__init__(names, pool=pool)

    def _file_by_filename(self, request: Any, filename: str) -> Any:
        return self._answer(request, self._files_of.FindFileByName, filename)

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        return self._answer(request, self._files_of.FindFileContainingSymbol, fully_qualified_name)

    def _answer(self, request: Any, find: Callable[[str], FileDescriptor], name: str) -> Any:
        library: Any = super()  # its stubs leave these methods out
        try:
            file = find(name).name
        except KeyError:
            return library._file_by_filename(request, name)
        encoded = self._answers.get(file)  # at most one for each file of the pool
        if encoded is None:
            answer = library._file_by_filename(request, file)
            encoded = self._answers[file] = answer.file_descriptor_response
        return reflection_pb2.ServerReflectionResponse(
            file_descriptor_response=encoded, original_request=request
        )


def reflected_descriptors(names: Collection[str]) -> DescriptorPool:
    """Return a pool of the descriptors that clients may ask for; `names` are the services."""
    # Python's stubs drop json_name. The descriptor set keeps it, and so every version of grpcurl
    # prints snapshotAt.
    raw = resources.files("tasklogs.v1").joinpath("descriptors.binpb").read_bytes()
    pool = DescriptorPool()
    files = list(FileDescriptorSet.FromString(raw).file)
    # No message of the API refers to the types of error details, but clients need them to print an
    # error.
    files += [_file(module) for module in (error_details_pb2, health_pb2, reflection_pb2)]
    files.append(_reflection_v1())
    if CHANNELZ in names:
        from grpc_channelz.v1 import channelz_pb2

        files += [_file(module) for module in (any_pb2, wrappers_pb2, channelz_pb2)]
    for file in files:
        pool.Add(file)
    return pool


def _file(module: Any) -> FileDescriptorProto:
    descriptor: FileDescriptor = module.DESCRIPTOR
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    for message in file.message_type:
        _name_as_json(message, descriptor.message_types_by_name[message.name])
    return file


def _name_as_json(message: DescriptorProto, descriptor: Descriptor) -> None:
    for field in message.field:
        field.json_name = descriptor.fields_by_name[field.name].json_name
    for nested in message.nested_type:
        _name_as_json(nested, descriptor.nested_types_by_name[nested.name])


def _reflection_v1() -> FileDescriptorProto:
    # grpcio-reflection has v1alpha only. v1 has the same messages under another package name.
    file = _file(reflection_pb2)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = _V1
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type = _renamed(method.input_type)
            method.output_type = _renamed(method.output_type)
    return file


def _renamed(type_name: str) -> str:
    return type_name.replace(f".{_V1ALPHA}.", f".{_V1}.")
