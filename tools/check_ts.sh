#!/bin/sh
# Checks the TypeScript client: stubs, tsc, eslint, tests. Without Node.js it says so.
#
#   tools/check_ts.sh install    only installs what the tests of the other languages need, too
set -eu
cd "$(dirname "$0")/.."

least=20
version=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
if [ "${version:-0}" -lt "$least" ] || ! command -v npm >/dev/null; then
    echo "check_ts: no Node.js $least or newer with npm, so the TypeScript client is not checked"
    exit 0
fi
cd clients/typescript
# npm leaves this file behind when it has installed everything. Not every shell's -nt is true for a
# file that is missing.
installed=node_modules/.package-lock.json
if [ ! -e "$installed" ] || [ package-lock.json -nt "$installed" ]; then
    npm ci --ignore-scripts
fi
[ "${1:-}" != install ] || exit 0
../../.venv/bin/python ../../tools/generate_ts_stubs.py --check
npm run --silent check
npm test --silent
