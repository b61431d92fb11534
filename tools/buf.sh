#!/bin/sh
# buf lint, and buf breaking against every released state of the API in protos/released.
set -eu
cd "$(dirname "$0")/.."

sh tools/googleapis.sh
.venv/bin/buf lint
for released in protos/released/*.binpb; do
    [ -e "$released" ] || continue
    # Only this module: the released state has the imports, but not as a module.
    .venv/bin/buf breaking protos --against "$released"
done
