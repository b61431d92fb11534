#!/bin/sh
# Writes the API as it is now to protos/released/VERSION.binpb: descriptors with all imports. From
# then on `make buf` refuses every change that breaks a peer of that version.
set -eu
cd "$(dirname "$0")/.."

version=${1:-}
case "$version" in
v[0-9]*.[0-9]*.[0-9]*) ;;
*)
    echo "release_api: name the version, for example v0.1.0" >&2
    exit 2
    ;;
esac
target=protos/released/$version.binpb
if [ -e "$target" ]; then
    echo "release_api: $target exists, and a released API does not change" >&2
    exit 1
fi
sh tools/buf.sh
mkdir -p protos/released
# protoc and buf read both the same file. Without comments it is small, and prose may change.
.venv/bin/buf build protos --exclude-source-info -o "$target"
echo "wrote $target"
