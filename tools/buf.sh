#!/bin/sh
# buf lint, and buf breaking against every released state of the API in protos/released.
set -eu
cd "$(dirname "$0")/.."

# buf reads imports from modules in this directory only.
api=.tools/googleapis/google/api
mkdir -p "$api"
installed=$(.venv/bin/python -c 'import google.api; print(list(google.api.__path__)[0])')
for name in annotations field_behavior http; do
    cp "$installed/$name.proto" "$api/"
done
.venv/bin/buf lint
for released in protos/released/*.binpb; do
    [ -e "$released" ] || continue
    .venv/bin/buf breaking --against "$released"
done
