#!/usr/bin/env bash
# Builds the image and tries the container as hardened as it is meant to run: no network,
# no root, no capability, nothing writable but /tmp, 1 GiB. Every line is a claim that
# was checked; the first that does not hold ends the test.
#
#   deploy/image-test.sh                        needs podman, buildah and a photo of imagenet-samples
#   PHOTO=cat.jpg LABEL=tabby deploy/image-test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v podman >/dev/null || ! command -v buildah >/dev/null; then
    echo "SKIPPED: podman and buildah are not installed, so no container was tried" >&2
    exit 77 # what test harnesses take for "skipped"; never mistaken for success
fi

PHOTO=${PHOTO:-${LINNAEUS_DATA:-../shared/data}/imagenet-samples/n02279972_monarch.JPEG}
LABEL=${LABEL:-monarch}
if [ ! -r "$PHOTO" ]; then # now, and not after the minutes that the image takes
    echo "there is no photo at $PHOTO: LINNAEUS_DATA names the data sets (docs/data.md);" >&2
    echo "or name a photo of your own, as PHOTO=cat.jpg LABEL=tabby, a label of imagenet" >&2
    exit 1
fi
GRACE_S=40 # docker-compose.yml gives the same
image=localhost/linnaeus:cpu
name=linnaeus-image-test-$$

podman() { command podman "${engine[@]}" "$@" 2> >(grep -v 'healthchecks\? *:' >&2); }
inside() { podman exec --interactive "$name" python -c "$@"; }
holds() { echo "ok    $1"; }
fails() {
    echo "FAIL  $1" >&2
    podman logs --tail 20 "$name" >&2 || true
    exit 1
}

engine=()
limits=()
if [ ! -d /run/systemd/system ]; then # no systemd to make control groups and timers
    engine=(--runtime runc --cgroup-manager cgroupfs)
    limits=(--ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
fi

ENGINE=podman deploy/build-image.sh cpu
trap 'podman rm --force --time 0 "$name" >/dev/null 2>&1 || true' EXIT
# Two lanes, for 1 GiB is not enough for one on each core of a larger machine.
podman run --detach --name "$name" "${limits[@]}" --network none --read-only \
    --tmpfs /tmp:size=64m --cap-drop all --security-opt no-new-privileges \
    --memory 1g --pids-limit 256 \
    --env LINNAEUS_LANES=2 --env LINNAEUS_DRAIN_NOTICE_S=2 "$image" >/dev/null

ready='
import http.client, time
end = time.monotonic() + 60
while True:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=5)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            break
    except OSError:
        pass
    if time.monotonic() > end:
        raise SystemExit("not ready after 60 s")
    time.sleep(0.1)
'
classify='
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
connection.request("POST", "/classify?model=imagenet", sys.stdin.buffer.read(), {"Content-Type": "image/jpeg"})
answer = connection.getresponse()
body = json.loads(answer.read())
print(answer.status, *(f"{p["label"]} {p["score"]:.2f}" for p in body["predictions"][:1]))
'
inside "$ready" || fails "it becomes ready"
holds "it becomes ready, without network, root or a writable file system"

podman healthcheck run "$name" >/dev/null || fails "its health check passes"
holds "its health check passes"

answer=$(inside "$classify" <"$PHOTO") || fails "it classifies $PHOTO"
[[ $answer == 200*"$LABEL"* ]] || fails "it says $LABEL to $PHOTO, not: $answer"
holds "it classifies a photo: $answer"

[ "$(podman exec "$name" id -u)" = 10001 ] || fails "it runs as user 10001"
inside 'open("/app/cli.py", "a")' 2>/dev/null && fails "it cannot write its own code"
inside 'open("/models/x", "w")' 2>/dev/null && fails "it cannot write models"
holds "it is user 10001 and can write neither its code nor its models"

inside '
import importlib.util, sys
found = [n for n in ("torch", "onnx", "pip", "training", "pytest") if importlib.util.find_spec(n)]
sys.exit(f"found {found}" if found else 0)' || fails "it has no torch and no installer"
holds "it has no torch, no onnx, no installer and no tests inside"

started=$(date +%s)
podman kill --signal TERM "$name" >/dev/null
inside '
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=5)
connection.request("GET", "/readyz")
sys.exit(connection.getresponse().status != 503)' || fails "it is not ready while it drains"
status=$(timeout $GRACE_S podman wait "$name") || fails "it ends within $GRACE_S s"
[ "$status" = 0 ] || fails "it ends with status 0, not $status"
holds "SIGTERM: not ready at once, then gone after $(($(date +%s) - started)) s with status 0"

base=$(podman image inspect --format '{{.Size}}' python:3.12-slim)
whole=$(podman image inspect --format '{{.Size}}' "$image")
echo "size  the image adds $(((whole - base) / 1000000)) MB to its base"
