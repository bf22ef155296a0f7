#!/usr/bin/env bash
# Makes a fresh Debian or Ubuntu host ready for Snip: swap, packages, users, settings, units, firewall, and TLS when a
# domain is named. Run it as root from a checkout of this repository, as often as you like: what is as it should be is left
# alone, and a service is restarted only when its settings have changed. docs/deployment.md tells what comes before and
# after.
#
#   ops/droplet-setup.sh [--plan] [--domain NAME --email ADDRESS]
#
# --plan says what would be done and does nothing. --domain serves NAME over TLS as well, with a certificate from Let's
# Encrypt, renewed by certbot's own timer; NAME has to lead to this host already.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

INSTANCES=(1 2 3)
SWAP_FILE=/swapfile
SWAP_BYTES=$((1024 * 1024 * 1024))
ACME_DIR=/var/www/acme
PACKAGES=(ca-certificates curl nginx-light postgresql prometheus prometheus-alertmanager prometheus-node-exporter python3
    redis-server ufw)
# Where nginx/ is rendered to: the values of its placeholders on a host with systemd.
NGINX_VALUES=(NGINX_USER=www-data WORKER_PRIORITY=0 RUN_DIR=/var/lib/nginx LISTEN=80 TLS_LISTEN=443 LOG_REDIRECTS=0
    ACCESS_LOG=/var/log/nginx/access.log ERROR_LOG=/var/log/nginx/error.log
    SNIP_1=unix:/run/snip/snip-1.sock SNIP_2=unix:/run/snip/snip-2.sock SNIP_3=unix:/run/snip/snip-3.sock)

plan=false domain='' email=''
declare -A stale=() # services whose settings have changed

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --plan) plan=true ;;
            --domain) domain=${2:?--domain needs a name} && shift ;;
            --email) email=${2:?--email needs an address} && shift ;;
            -h | --help) usage && exit ;;
            *) usage >&2 && die "unknown argument: $1" ;;
        esac
        shift
    done
    [[ $domain =~ ^[A-Za-z0-9.-]*$ ]] || die "'$domain' is no domain name"
    [ -z "$domain" ] || [ -n "$email" ] || die "--domain needs --email: Let's Encrypt writes there before a certificate ends"
}

check_host() {
    # shellcheck source=/dev/null
    . /etc/os-release
    case "${ID:-} ${ID_LIKE:-}" in
        *debian* | *ubuntu*) ;;
        *) die "this is ${PRETTY_NAME:-an unknown system}; the packages and units are those of Debian and Ubuntu" ;;
    esac
    $plan || [ "$(id -u)" -eq 0 ] || die "run it as root, or with --plan to see what it would do"
}

# In a container the kernel is somebody else's, and while an image is made nothing runs.
has_own_kernel() { ! systemd-detect-virt --quiet --container && ! systemd-detect-virt --quiet --chroot; }
is_booted() { [ -d /run/systemd/system ]; }

# ---- What all steps are made of -------------------------------------------------------------------------------------

# Says what is done and does it: act TEXT COMMAND...
act() {
    say "$1"
    shift
    $plan || "$@"
}

# Writes standard input to a file unless it is there already: put FILE MODE OWNER:GROUP [SERVICE that is to notice]
put() {
    local file=$1 mode=$2 owner=$3 service=${4:-} text
    text=$(cat && echo .) # the dot keeps newlines at the end
    text=${text%.}
    [ -f "$file" ] && [ "$(cat "$file" && echo .)" = "$text." ] && return
    say "writing $file"
    [ -z "$service" ] || stale[$service]=1
    $plan && return
    install -d "$(dirname "$file")"
    install -m "$mode" -o "${owner%:*}" -g "${owner#*:}" /dev/null "$file.new"
    printf %s "$text" >"$file.new"
    mv "$file.new" "$file"
}

put_link() {
    [ "$(readlink "$2" || true)" = "$1" ] || act "linking $2 to $1" ln -sfn "$1" "$2"
}

as_postgres() { (cd / && runuser -u postgres -- "$@"); }

# ---- The steps, in their order --------------------------------------------------------------------------------------

add_swap() {
    [ "$(awk 'NR > 1' /proc/swaps | wc -l)" -eq 0 ] || return 0
    make_swap() {
        fallocate -l "$SWAP_BYTES" "$SWAP_FILE"
        chmod 600 "$SWAP_FILE"
        mkswap "$SWAP_FILE" >/dev/null
        swapon "$SWAP_FILE"
    }
    act "adding 1 GiB of swap, $SWAP_FILE" make_swap
    grep -q "^$SWAP_FILE " /etc/fstab || act "noting it in /etc/fstab" \
        sh -c "echo '$SWAP_FILE none swap sw 0 0' >>/etc/fstab"
}

install_packages() {
    local package missing=()
    [ -z "$domain" ] || PACKAGES+=(certbot)
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    install_missing() {
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" >/dev/null
    }
    act "reading the lists of packages" apt-get -qq update
    act "installing ${missing[*]}" install_missing
}

set_kernel() {
    cmp -s ops/systemd/sysctl.conf /etc/sysctl.d/60-snip.conf && return
    put /etc/sysctl.d/60-snip.conf 644 root:root <ops/systemd/sysctl.conf
    act "applying the kernel's settings" sysctl --quiet --load=/etc/sysctl.d/60-snip.conf
}

add_users() {
    local user
    for user in snip snip-alerts; do
        id "$user" >/dev/null 2>&1 || act "adding the user $user" \
            adduser --quiet --system --group --no-create-home --home "/var/lib/$user" "$user"
    done
    id -nG snip 2>/dev/null | grep -qw redis || act "letting snip reach Redis's socket" usermod -aG redis snip
    [ -d /opt/snip/releases ] || act "making /opt/snip/releases" install -d -m 755 /opt/snip/releases
    # The passwords stay with root: systemd reads the file for the unit. What is in them already is the owner's.
    [ -f /etc/snip/snip.env ] || put /etc/snip/snip.env 600 root:root <<'ENV'
# Read by snip@.service. docs/configuration.md has every variable.
# PostgreSQL knows the user snip of this host by its name: no password. A managed database: postgres://...?sslmode=verify-full
DATABASE_URL="host=/run/postgresql user=snip dbname=snip"
REDIS_URL=unix:///run/redis/redis.sock
ENV
    [ -f /etc/snip/alerts.env ] || put /etc/snip/alerts.env 600 root:root <<'ENV'
# Read by snip-alerts.service.
#DISCORD_WEBHOOK_URL=
ENV
}

set_postgres() {
    local version cluster
    version=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -n | tail -1)
    version=${version:-VERSION} # only a plan gets here without the package
    cluster=/etc/postgresql/$version/main
    [ -d "$cluster" ] || act "making the database cluster $version/main" pg_createcluster "$version" main
    put "$cluster/conf.d/snip.conf" 644 root:root postgresql <ops/postgres/postgresql.conf
    put_drop_in postgresql@ postgresql
}

set_redis() {
    put /etc/redis/snip.conf 644 root:root redis-server <ops/redis/redis.conf
    put_drop_in redis-server redis-server
}

put_drop_in() { # UNIT, SERVICE to restart
    put "/etc/systemd/system/$1.service.d/snip.conf" 644 root:root "$2" <"ops/systemd/drop-in/$1.conf"
}

set_nginx() {
    local file
    python3 ops/lib/render.py --into "$scratch" nginx/*.conf "${NGINX_VALUES[@]}"
    for file in nginx/*.conf; do
        put "/etc/nginx/${file#nginx/}" 644 root:root nginx <"$scratch/${file#nginx/}"
    done
    [ -d /etc/nginx/enabled ] || act "making /etc/nginx/enabled" install -d -m 755 /etc/nginx/enabled
    put_drop_in nginx nginx
}

set_watching() {
    local file files
    mapfile -t files < <(cd ops/prometheus && find prometheus.yml rules targets -type f)
    for file in "${files[@]}"; do
        put "/etc/prometheus/$file" 644 root:root prometheus <"ops/prometheus/$file"
    done
    python3 ops/lib/render.py --into "$scratch" ops/alertmanager/alertmanager.yml RECEIVER=127.0.0.1:9095
    put /etc/prometheus/alertmanager.yml 644 root:root prometheus-alertmanager <"$scratch/alertmanager.yml"
    for file in prometheus prometheus-alertmanager prometheus-node-exporter; do
        put_drop_in "$file" "$file"
    done
}

set_units() {
    local file
    for file in snip@.socket snip@.service snip@trial.socket snip@trial.service.d/trial.conf snip.target snip-alerts.service; do
        put "/etc/systemd/system/$file" 644 root:root <"ops/systemd/$file"
    done
    local instance units=(snip.target snip-alerts.service)
    for instance in "${INSTANCES[@]}"; do
        units+=("snip@$instance.socket")
    done
    systemctl --quiet is-enabled "${units[@]}" >/dev/null 2>&1 ||
        act "enabling ${units[*]}" systemctl --quiet enable "${units[@]}"
}

start_services() {
    local service
    if ! is_booted && ! $plan; then
        say "systemd does not run here: services start with the next boot"
        return
    fi
    $plan || systemctl daemon-reload
    $plan || nginx -t -q || die "Nginx does not take its configuration; nothing was restarted"
    for service in postgresql redis-server prometheus prometheus-alertmanager prometheus-node-exporter nginx; do
        if [ -n "${stale[$service]:-}" ]; then
            act "restarting $service: its settings are new" systemctl restart "$service"
        elif ! systemctl --quiet is-active "$service" 2>/dev/null; then
            act "starting $service" systemctl start "$service"
        fi
    done
}

add_database() {
    if ! $plan && ! as_postgres pg_isready --quiet; then
        is_booted && die "PostgreSQL does not answer: journalctl -u 'postgresql@*'"
        say "PostgreSQL does not run: run this again when it does, to have the database made"
        return
    fi
    has() { ! $plan && [ -n "$(as_postgres psql -XAtq -d postgres -c "$1")" ]; }
    has "SELECT 1 FROM pg_roles WHERE rolname = 'snip'" || act "adding the database user snip" as_postgres createuser snip
    has "SELECT 1 FROM pg_database WHERE datname = 'snip'" ||
        act "adding the database snip" as_postgres createdb --owner=snip --encoding=UTF8 --locale=C --template=template0 snip
}

set_firewall() {
    local port ssh_ports
    if ufw status 2>/dev/null | grep -q '^Status: active' && ufw status | grep -q '^443/tcp'; then
        return
    fi
    # Nobody is to be locked out: where sshd says nothing, its usual port.
    ssh_ports=$(sshd -T 2>/dev/null | awk '$1 == "port" { print $2 }' || true)
    for port in ${ssh_ports:-22} 80 443; do
        act "letting in port $port" ufw allow "$port/tcp" comment 'set by droplet-setup'
    done
    act "refusing all other ports" ufw default deny incoming
    act "switching the firewall on" ufw --force enable
}

# Plain HTTP for the domain answers Let's Encrypt and sends everybody else to TLS.
set_tls() {
    put /etc/nginx/enabled/acme.conf 644 root:root <<NGINX
server {
    listen 80;
    server_name $domain;
    location /.well-known/acme-challenge/ {
        root $ACME_DIR;
    }
    location / {
        return 301 https://\$host\$request_uri;
    }
}
NGINX
    act "having Nginx read it" systemctl reload nginx
    [ -d "$ACME_DIR" ] || act "making $ACME_DIR" install -d -m 755 "$ACME_DIR"
    [ -d "/etc/letsencrypt/live/$domain" ] || act "asking Let's Encrypt for a certificate of $domain" \
        certbot certonly --quiet --non-interactive --agree-tos --email "$email" --webroot --webroot-path "$ACME_DIR" \
        --domain "$domain" --deploy-hook 'systemctl reload nginx'
    put_link "/etc/letsencrypt/live/$domain" /etc/nginx/tls
    put_link ../tls.conf /etc/nginx/enabled/tls.conf
    act "having Nginx serve TLS" sh -c 'nginx -t -q && systemctl reload nginx'
}

main() {
    read_arguments "$@"
    check_host
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if has_own_kernel; then
        add_swap
        install_packages
        set_kernel
    else
        say "this is a container: swap, kernel settings and firewall are its host's"
        install_packages
    fi
    add_users
    set_postgres
    set_redis
    set_nginx
    set_watching
    set_units
    start_services
    add_database
    ! has_own_kernel || set_firewall
    [ -z "$domain" ] || set_tls
    if $plan; then
        say "this was the plan; nothing has been changed"
    elif [ -e /opt/snip/current ]; then
        say "done"
    else
        say "done; now put a version into service: ops/deploy BINARY"
    fi
}

main "$@"
