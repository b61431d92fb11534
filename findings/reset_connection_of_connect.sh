#!/bin/sh
# Connect for Node.js reports a connection that is reset during a gRPC call as aborted or canceled.
#
# Guess: unavailable, as for a connection that is refused, and as in the gRPC libraries of Go, C and
#   Java: nobody answered, and another attempt may succeed.
# Instead: aborted ("read ECONNRESET") or canceled ("http/2 stream closed with error code CANCEL"),
#   depending on which of Node.js' events comes first. Nobody has canceled anything.
# Versions: @connectrpc/connect and @connectrpc/connect-node 2.1.2, @bufbuild/protobuf 2.12.0.
# Why it matters: a client that retries what is unavailable ends with an error when a server is
#   killed, but not when it is away.
# What we do: the TypeScript client reports both as unavailable. clients/typescript/src/errors.ts.
set -eu
command -v npm >/dev/null || { echo "no npm" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
npm init --yes --init-type=module >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts @connectrpc/connect@2.1.2 \
    @connectrpc/connect-node@2.1.2 @bufbuild/protobuf@2.12.0
cat >main.js <<'END'
import { createServer } from "node:net";
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty,
} from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

// A service with one method, without generated code.
const empty = ".google.protobuf.Empty";
const file = create(FileDescriptorProtoSchema, {
  name: "x.proto",
  package: "x",
  syntax: "proto3",
  dependency: ["google/protobuf/empty.proto"],
  service: [{ name: "X", method: [{ name: "Call", inputType: empty, outputType: empty }] }],
});
const set = create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] });
const service = createFileRegistry(set).getService("x.X");

async function codeOf(port) {
  const client = createClient(
    service, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }),
  );
  try {
    await client.call({}, { timeoutMs: 10_000 });
    return "answered";
  } catch (error) {
    return Code[error.code];
  }
}

// A server that dies when the call arrives: its kernel resets the connection.
const server = createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", () => socket.resetAndDestroy());
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address();
const reset = new Set();
for (let call = 0; call < 50; call += 1) {
  reset.add(await codeOf(port));
}
await new Promise((resolve) => server.close(resolve));
const refused = await codeOf(port);
console.log(`refused: ${refused}; reset: ${[...reset].join(" or ")}`);
const asFound = refused === "Unavailable" &&
  [...reset].every((code) => code === "Aborted" || code === "Canceled");
console.log(asFound ? "a reset is not unavailable" : "CHANGED");
process.exit(asFound ? 0 : 1);
END
timeout 60 node main.js
