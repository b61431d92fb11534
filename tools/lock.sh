#!/bin/sh
# Writes the locks in requirements/ anew from pyproject.toml, with hashes, for every platform and
# Python >= 3.11. dev.lock has everything: the dependencies of the project, its extras `server`,
# `telemetry`, `nats` and `transcripts`, its development tools and its build back end. The other
# locks are parts of it, in the same versions. No lock names a registry, so pip uses the one that is
# configured on the machine. Versions that stand in dev.lock stay, unless UPGRADE=1.
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

compile pyproject.toml --extra server --extra telemetry --extra nats --extra transcripts \
    --group dev ${UPGRADE:+--upgrade} --output-file requirements/dev.lock
# What builds packages is installed before all others, in the same versions.
compile --group build --constraint requirements/dev.lock --output-file requirements/build.lock
# What serving needs, for the container image and `make run`: no development tools.
compile pyproject.toml --extra server --extra telemetry --extra nats --extra transcripts \
    --constraint requirements/dev.lock --output-file requirements/serve.lock
# What `make fuzz` installs beside dev.lock, where there is a build of it.
compile --group fuzz --constraint requirements/dev.lock ${UPGRADE:+--upgrade} \
    --output-file requirements/fuzz.lock
