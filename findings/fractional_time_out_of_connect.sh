#!/bin/sh
# Connect for Node.js sends a time-out with a fraction as it is, and its own server refuses that.
#
# Guess: `timeoutMs` is any number of milliseconds. The gRPC transport rounds it, because the header
#   `grpc-timeout` holds an integer of at most eight digits. What is left of a deadline, as
#   `performance.now()` gives it, nearly always has a fraction.
# Instead: the header has all digits of the fraction. A server of the same library answers
#   invalid_argument.
# Versions: @connectrpc/connect and @connectrpc/connect-node 2.1.2, @bufbuild/protobuf 2.12.0.
# Why it matters: a call that gives what is left of its deadline fails, although nothing is wrong
#   with it. With whole numbers, as in examples and tests, it works.
# What we do: the TypeScript client rounds up.
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
import { createServer } from "node:http2";
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty,
} from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";

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

const headers = [];
const routes = (router) => router.service(service, { call: () => ({}) });
const adapter = connectNodeAdapter({ routes });
const server = createServer((request, response) => {
  headers.push(request.headers["grpc-timeout"]);
  adapter(request, response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const client = createClient(
  service, createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.address().port}` }),
);
const results = [];
for (const timeoutMs of [2000, 2000.25]) {
  try {
    await client.call({}, { timeoutMs });
    results.push("answered");
  } catch (error) {
    results.push(error.message);
  }
}
headers.forEach((header, at) => console.log(`grpc-timeout: ${header}: ${results[at]}`));
const asFound = headers.join() === "2000m,2000.25m" && results[0] === "answered" &&
  results[1].includes("invalid grpc timeout");
console.log(asFound ? "a fraction is sent, and refused" : "CHANGED");
process.exit(asFound ? 0 : 1);
END
timeout 50 node main.js
