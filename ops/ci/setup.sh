#!/usr/bin/env bash
# Installs what the tests need on a bare Debian or Ubuntu machine with Rust. Runs as root or with sudo, as often as you
# like: what is there is left alone, and when all is there nothing is asked of the network.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# PostgreSQL's server programs are not on the PATH in Debian; any version will do.
have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || have initdb; }

have_requests() { python3 -c 'import requests' 2>/dev/null || /usr/bin/python3 -c 'import requests' 2>/dev/null; }

# Prints the packages that are missing, one a line. Daemons live in sbin, which is not on everybody's PATH.
missing_packages() {
    local PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    have cc || echo build-essential # bundled SQLite and the linker
    have curl || echo curl
    have ip || echo iproute2 # a loopback of its own for a copy of the system
    have jq || echo jq
    have strace || echo strace # counts system calls of a running server
    have wrk || echo wrk
    have node || echo nodejs
    have python3 || echo python3
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv # load tests and checks of files install Python packages into folders
    have_requests || echo python3-requests
    have valgrind || echo valgrind
    have nginx || echo nginx-light
    have shellcheck || echo shellcheck
    have systemd-analyze || echo systemd # checks units; nothing of it runs
    have redis-server || echo redis-server
    have pgbouncer || echo pgbouncer
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime # clocks that jump, in the experiments
    have mkfs.ext4 || echo e2fsprogs # their small disks
    have redis-cli || echo redis-tools
    have promtool || echo prometheus # promtool, and the server that the alert tests run
    have amtool || echo prometheus-alertmanager
    have prometheus-node-exporter || echo prometheus-node-exporter
    have_postgres || echo postgresql-15
}

# A registry that is away for a minute comes back; what the tools try by themselves is over within seconds.
NETWORK_TRIES=10

# Checks files of YAML against their schemas, and runs the tests in Python several at a time: a folder of their own, beside
# Debian's Python.
VENV=target/venv
PYTHON_TOOLS=(check-jsonschema==0.39.0 pytest==9.2.0 pytest-xdist==3.8.0)

have_python_tools() {
    [ -x "$VENV/bin/pip" ] && [ -z "$(comm -13 <("$VENV/bin/pip" freeze | sort) <(printf '%s\n' "${PYTHON_TOOLS[@]}" | sort))" ]
}

install_python_tools() {
    say "installing ${PYTHON_TOOLS[*]} into $VENV"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --retries "$NETWORK_TRIES" "${PYTHON_TOOLS[@]}"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

may_install() { [ "$(id -u)" -eq 0 ] || have sudo; }

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o "Acquire::Retries=$NETWORK_TRIES" "$@"; }

# The tests start daemons of their own, in folders of their own. The packages' services stay off: no main cluster,
# and policy-rc.d (101: not allowed) while packages are unpacked. One that is there already is left alone.
keep_services_off() {
    as_root mkdir -p /etc/postgresql-common
    if ! grep -qs '^create_main_cluster' /etc/postgresql-common/createcluster.conf; then
        echo 'create_main_cluster = false' | as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    [ -e /usr/sbin/policy-rc.d ] && return
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
}

# Debian 12 has PostgreSQL 15; other releases have one other version, which the plain name stands for.
resolve_packages() {
    local package
    for package in "$@"; do
        if [ "$package" = postgresql-15 ] && [ -z "$(apt-cache madison postgresql-15)" ]; then
            package=postgresql
        fi
        echo "$package"
    done
}

install_packages() {
    have apt-get || die "this machine has no apt-get; install by hand: $*"
    may_install || die "neither root nor sudo: ask an administrator to install: $*"
    say "installing: $*"
    apt update
    keep_services_off
    local packages
    mapfile -t packages < <(resolve_packages "$@")
    apt install -y --no-install-recommends "${packages[@]}" >/dev/null
}

# A python3 that is not Debian's does not see Debian's packages.
install_requests() {
    say "installing Python's requests with pip"
    python3 -m pip install --quiet --retries "$NETWORK_TRIES" requests || die "python3 can't import requests, and pip did not install it"
}

install_components() {
    local component
    for component in "$@"; do
        say "installing the Rust component $component"
        have rustup || die "cargo has no $component, and there is no rustup to add it"
        rustup component add "$component"
    done
}

have cargo || die "Rust is missing: install it with rustup first (see README.md)"

mapfile -t packages < <(missing_packages)
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
have_requests || install_requests
have_python_tools || install_python_tools

components=()
cargo fmt --version >/dev/null 2>&1 || components+=(rustfmt)
cargo clippy --version >/dev/null 2>&1 || components+=(clippy)
[ ${#components[@]} -eq 0 ] || install_components "${components[@]}"

mapfile -t packages < <(missing_packages)
[ ${#packages[@]} -eq 0 ] || die "still missing after the installation: ${packages[*]}"
say "all that the tests need is here"
