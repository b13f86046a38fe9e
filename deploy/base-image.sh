#!/usr/bin/env bash
# A stand-in for the image python:3.12-slim where no image registry can be reached:
# Debian's smallest system with a CPython 3.12 in /usr/local. For tests, never to ship.
#
#   PYTHON_PREFIX=/path/to/a/cpython-3.12 deploy/base-image.sh     (as root)
set -euo pipefail

name=localhost/python:3.12-slim
: "${PYTHON_PREFIX:?set it to the prefix of a CPython 3.12 (the folder that has bin/python3.12)}"
"$PYTHON_PREFIX/bin/python3.12" -c '' # a clear error now, not inside the image
command -v debootstrap >/dev/null || { echo "debootstrap is not installed" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

echo "Making $name from $PYTHON_PREFIX …"
# The shared libraries that CPython's own modules are linked with.
libraries=libssl3,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8,libncursesw6,libuuid1
debootstrap --variant=minbase --include=ca-certificates,$libraries bookworm "$root" >/dev/null

cp -a "$PYTHON_PREFIX/." "$root/usr/local/"
for link in python python3; do ln -sf python3.12 "$root/usr/local/bin/$link"; done
# pip's own scripts name the interpreter where it was built.
sed -i '1s|^#!.*python.*|#!/usr/local/bin/python3.12|' "$root"/usr/local/bin/pip*
echo /usr/local/lib >"$root/etc/ld.so.conf.d/local.conf"
chroot "$root" ldconfig
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root/usr/local/lib/python3.12/test"

# Let pip find packages the way it does outside.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for file in /etc/pip.conf "$HOME/.config/pip/pip.conf"; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done

tar -C "$root" -c . |
    podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["python3"]' - "$name"
