#!/usr/bin/env bash
# Lays out all files of the container image: the program, the libraries that it is linked to, the authorities that TLS to a
# managed database trusts, and folders of its own. Nothing else is in the image, not even a shell.
#
#   ops/docker/rootfs.sh BINARY FOLDER
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: rootfs.sh BINARY FOLDER" >&2 && exit 2; }
binary=$1 folder=$2
user=10001

install -D -m 755 "$binary" "$folder/usr/bin/snip"
# Paths of libraries: the loader's stands alone, those of the others behind an arrow.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$folder$library"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
install -D -m 644 /dev/stdin "$folder/etc/passwd" <<<"snip:x:$user:$user:snip:/var/lib/snip:/usr/sbin/nologin"
install -D -m 644 /dev/stdin "$folder/etc/group" <<<"snip:x:$user:"
install -d -m 1777 "$folder/tmp"
install -d -m 750 -o "$user" -g "$user" "$folder/var/lib/snip"
install -d -m 755 -o "$user" -g "$user" "$folder/run/snip"
