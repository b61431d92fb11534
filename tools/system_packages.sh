#!/bin/sh
# Installs the programs that some tests and `make model` run and that no wheel has, where Debian's
# packages can be installed. Elsewhere it says what is missing; what needs it says so, too, and is
# left out.
set -eu

programs="nginx pgbouncer spin" # each comes in the package of its name

is_there() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

missing=
for program in $programs; do
    is_there "$program" || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "system packages: missing:$missing (as root, on Debian: apt-get install$missing)"
    exit 0
fi

# The packages start a service, unless this says no. The tests start their own processes.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
echo "system packages: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
# shellcheck disable=SC2086 - a list of names without spaces
apt-get install -qq -y --no-install-recommends $missing >/dev/null
