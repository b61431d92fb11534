#!/bin/sh
# Writes requirements/dev.lock anew from pyproject.toml: every dependency of the project, its
# `server` and `telemetry` extras, its development tools and its build back end, with hashes, for every platform
# and Python >= 3.11. No lock names a registry, so that it installs through whichever is set up.
# Versions that already stand in the lock stay, unless UPGRADE=1.
set -eu
cd "$(dirname "$0")/.."

uv_version=0.13.9
uv=.tools/uv-$uv_version/bin/uv
if [ ! -x "$uv" ]; then
    .venv/bin/python -m venv ".tools/uv-$uv_version"
    ".tools/uv-$uv_version/bin/python" -m pip install --quiet "uv==$uv_version"
fi

compile() {
    "$uv" pip compile "$@" --universal --python-version 3.11 --generate-hashes --no-annotate \
        --no-header --no-emit-index-url --no-emit-find-links --quiet
}

compile pyproject.toml --extra server --extra telemetry --group dev ${UPGRADE:+--upgrade} \
    --output-file requirements/dev.lock
# What builds packages is installed before all others, in the same versions.
compile --group build --constraint requirements/dev.lock --output-file requirements/build.lock
# What a container image needs, in the same versions and without any tools.
compile pyproject.toml --extra server --extra telemetry --constraint requirements/dev.lock \
    --output-file requirements/image.lock
# What `make fuzz` installs beside dev.lock, where there is a build of it.
compile --group fuzz --constraint requirements/dev.lock ${UPGRADE:+--upgrade} \
    --output-file requirements/fuzz.lock
