#!/bin/sh
# The real AgentAPI for the tests: .tools/bin/agentapi, built by Go from its module.
#
#   tools/agentapi.sh ensure     install it, unless it is there or was refused within a day
#   tools/agentapi.sh force      install it, whatever was recorded
#   tools/agentapi.sh left-out   say what the tests left out, if anything, and why
#
# The outcome stands in .tools/agentapi.status, one line: `installed VERSION`, or the reason why it
# is not there. Its absence is no failure unless TASKLOGS_REQUIRE_AGENTAPI=1.
set -eu
cd "$(dirname "$0")/.."

version=v0.12.1
binary=.tools/bin/agentapi
status=.tools/agentapi.status
no_go="Go is not on the PATH"

is_installed() { [ -x "$binary" ] && [ "$(cat "$status" 2>/dev/null)" = "installed $version" ]; }

was_tried_today() {
    [ -f "$status" ] && [ -z "$(find "$status" -mtime +0)" ] || return 1
    case "$(cat "$status")" in
        "$no_go" | installed*) return 1 ;;
    esac
}

install() {
    mkdir -p .tools/bin
    if ! command -v go >/dev/null 2>&1; then
        echo "$no_go" >"$status"
        return
    fi
    echo "setup: building AgentAPI $version with Go (about a minute the first time)"
    if said=$(GOBIN="$PWD/.tools/bin" go install "github.com/coder/agentapi@$version" 2>&1); then
        echo "installed $version" >"$status"
        return
    fi
    # One line, without the address that Go read and without the module's name twice.
    reason=$(printf '%s' "$said" | tr -s '\n\t' '  ' |
        sed -e 's#reading http[^ ]*: ##' -e 's/^go: //' \
        -e "s#github.com/coder/agentapi@$version: ##g")
    echo "go install refused: $reason" >"$status"
    echo "setup: no AgentAPI: $(cat "$status")"
}

require() {
    is_installed && return
    [ "${TASKLOGS_REQUIRE_AGENTAPI:-}" = 1 ] || return 0
    echo "TASKLOGS_REQUIRE_AGENTAPI=1, but there is no AgentAPI: $(cat "$status")" >&2
    return 1
}

case "${1:-}" in
    ensure)
        is_installed || was_tried_today || install
        require
        ;;
    force)
        install
        cat "$status"
        require
        ;;
    left-out)
        is_installed || echo "left out: tests against the real AgentAPI ($(cat "$status"))"
        ;;
    *)
        echo "usage: tools/agentapi.sh ensure | force | left-out" >&2
        exit 2
        ;;
esac
