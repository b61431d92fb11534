#!/bin/sh
# Copies google/api/*.proto to .tools/googleapis: buf reads imports from modules in this directory.
set -eu
cd "$(dirname "$0")/.."

api=.tools/googleapis/google/api
mkdir -p "$api"
installed=$(.venv/bin/python -c 'import google.api; print(list(google.api.__path__)[0])')
for name in annotations field_behavior http; do
    cp "$installed/$name.proto" "$api/"
done
