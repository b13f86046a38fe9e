#!/usr/bin/env bash
# Dockerfile → the image linnaeus:cpu or linnaeus:gpu, with Docker, or with Podman's
# buildah where there is no Docker or ENGINE=podman asks for it.
#
#   deploy/build-image.sh cpu
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?cpu or gpu}

if [ "${ENGINE:-docker}" != podman ] && docker info >/dev/null 2>&1; then
    exec docker build --target "$target" --tag "linnaeus:$target" .
fi
command -v buildah >/dev/null || { echo "neither Docker nor buildah (Podman) works here" >&2; exit 1; }

base=$(sed -n 's/^FROM \(python:[^ ]*\).*/\1/p' Dockerfile | head -n 1)
if ! podman image exists "$base" && ! podman pull --quiet "$base"; then
    echo "$base cannot be pulled; making a stand-in from PYTHON_PREFIX" >&2
    deploy/base-image.sh
fi
# --isolation chroot also works inside a container that may not make namespaces;
# --format docker keeps HEALTHCHECK, for which the OCI format has no field.
exec buildah bud --quiet --isolation chroot --network host --format docker \
    --target "$target" --tag "localhost/linnaeus:$target" .
