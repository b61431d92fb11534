#!/bin/sh
# buf lint, and buf breaking against the newest tag of main, if there is one.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/buf lint
tag=$(git describe --tags --abbrev=0 2>/dev/null) || exit 0
.venv/bin/buf breaking --against ".git#tag=$tag"
