#!/bin/sh
# Generates stubs for Go and TypeScript as a user would, without an option, and compiles them. It
# installs the generators in .tools/foreign, with the machine's Go and npm. Not a part of CI.
set -eu
cd "$(dirname "$0")/.."

root=$PWD
work=$root/.tools/foreign
site=$("$root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# grpcio-tools has google/protobuf/*.proto in a directory of its own.
protoc() {
    "$root/.venv/bin/python" -m grpc_tools.protoc -I protos -I "$site" \
        -I "$site/grpc_tools/_proto" "$@" protos/tasklogs/v1/*.proto
}
found() {
    command -v "$1" >/dev/null || { echo "foreign_stubs: no $1, so no $2" && return 1; }
}

mkdir -p "$work/bin"
if found go "Go stubs"; then
    for plugin in google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 \
        google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 \
        connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1; do
        GOBIN=$work/bin go install "$plugin"
    done
    rm -rf "$work/go" && mkdir -p "$work/go"
    PATH=$work/bin:$PATH protoc --go_out="$work/go" --go-grpc_out="$work/go" \
        --connect-go_out="$work/go"
    # go_package begins with the name of this module.
    (cd "$work/go/tasklogs" && go mod init tasklogs && go mod tidy && go build ./... && go vet ./...)
    echo "foreign_stubs: Go compiles"
fi
if found npm "TypeScript stubs"; then
    mkdir -p "$work/es"
    [ -e "$work/es/package.json" ] || echo '{"private": true, "type": "module"}' >"$work/es/package.json"
    npm --prefix "$work/es" install --silent --no-audit --no-fund --save-exact \
        @bufbuild/protoc-gen-es@2 @bufbuild/protobuf@2 @connectrpc/connect@2 typescript@5
    rm -rf "$work/es/src" && mkdir -p "$work/es/src"
    # These stubs import those of google/api.
    protoc --plugin="protoc-gen-es=$work/es/node_modules/.bin/protoc-gen-es" \
        --es_out="$work/es/src" "$site"/google/api/annotations.proto \
        "$site"/google/api/http.proto "$site"/google/api/field_behavior.proto
    cat >"$work/es/src/main.ts" <<'TS'
import { create, toBinary } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { TaskLogs } from "./tasklogs/v1/task_logs_pb";
import { TaskLogEntrySchema, TaskLogType } from "./tasklogs/v1/types_pb";

const entry = create(TaskLogEntrySchema, { id: 0, type: TaskLogType.TOOL_CALL, content: "x" });
export const bytes: Uint8Array = toBinary(TaskLogEntrySchema, entry);
export const read = (transport: Transport) =>
  createClient(TaskLogs, transport).getTaskLogs({ task: "local/demo" });
TS
    "$work/es/node_modules/.bin/tsc" --strict --noEmit --target es2022 --module esnext \
        --moduleResolution bundler "$work/es/src/main.ts"
    echo "foreign_stubs: TypeScript compiles"
fi
