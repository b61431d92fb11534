#!/bin/sh
# Checks the Go client: stubs, format, go vet, staticcheck, tests. Without Go it says so.
set -eu
cd "$(dirname "$0")/.."

# The oldest Go for which staticcheck builds. The library itself needs 1.25.
case "$(go env GOVERSION 2>/dev/null)" in
    go1.2[6-9]* | go1.[3-9][0-9]*) ;;
    *)
        echo "check_go: no Go 1.26 or newer here, so the Go client is not checked"
        exit 0
        ;;
esac
.venv/bin/python tools/generate_go_stubs.py --check
cd clients/go
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
    echo "check_go: not formatted by gofmt: $unformatted" >&2
    exit 1
fi
go vet ./...
go tool -modfile=tools.mod staticcheck ./...
go test ./...
