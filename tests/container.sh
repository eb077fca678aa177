#!/usr/bin/env bash
# Runs the main job once against RabbitMQ in a container, through testcontainers. Where no Docker engine answers, it
# installs one and starts it by hand; where there is no image, it makes one from the distribution's own packages, for
# none may be there to be pulled. Stops what it started.
set -euo pipefail
cd "$(dirname "$0")/.."
image=migma-eraser-rabbitmq:local
work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-container.XXXXXX")
engine=""
cleanup() {
    local code=$?
    trap - EXIT
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$work" 2>/dev/null || true
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if ! docker info > /dev/null 2>&1; then
    tests/install.sh docker.io iptables ca-certificates
    export DOCKER_HOST="unix://$work/docker.sock"
    start() {
        dockerd -H "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" "$@" > "$work/dockerd.log" 2>&1 &
        engine=$!
        for _ in $(seq 150); do
            docker info > /dev/null 2>&1 && return 0
            kill -0 "$engine" 2>/dev/null || return 1
            sleep 0.2
        done
        return 1
    }
    echo "== starting a Docker engine"
    # Overlay file systems cannot be stacked everywhere; plain copies can.
    start || { kill "$engine" 2>/dev/null || true; start --storage-driver vfs; } || { tail -20 "$work/dockerd.log" >&2; exit 1; }
fi

if ! docker image inspect "$image" > /dev/null 2>&1; then
    echo "== making an image of RabbitMQ"
    tests/install.sh debootstrap
    . /etc/os-release
    # The mirror that this machine uses itself.
    mirror=$(sed -nE 's/^(URIs:|deb)[[:space:]]+(\[[^]]*\][[:space:]]*)?(https?:[^[:space:]]+).*/\3/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -m1 '/debian/\?$' || true)
    debootstrap --variant=minbase --include=rabbitmq-server,ca-certificates "$VERSION_CODENAME" "$work/root" ${mirror:+"$mirror"} > "$work/debootstrap.log" 2>&1 \
        || { tail -20 "$work/debootstrap.log" >&2; exit 1; }
    printf 'listeners.tcp.default = 5672\nloopback_users = none\nlog.console = true\n' > "$work/root/etc/rabbitmq/rabbitmq.conf"
    tar -C "$work/root" -c . | docker import \
        --change 'ENTRYPOINT ["/usr/lib/rabbitmq/bin/rabbitmq-server"]' --change 'EXPOSE 5672' \
        --change 'ENV HOME=/var/lib/rabbitmq RABBITMQ_NODENAME=rabbit@localhost' - "$image" > /dev/null
    rm -rf "$work/root"
fi

echo "== the main job, through a container"
CONTAINER_IMAGE=$image cargo test --locked --test container -- --nocapture

echo "== the worker's own image: every step of deploy/Dockerfile"
# On a base that is here, for others cannot be pulled everywhere; with a cargo that hands over what is built already, for
# the rest of the build is the Dockerfile's own.
# As the tests have it: built alone, it would be built anew with all that it is made of, for their features differ.
cargo test --locked --quiet --no-run --test it
mkdir "$work/base"
cp "${CARGO_TARGET_DIR:-target}/debug/migma-eraser" "$work/base/built"
printf '#!/bin/sh\nset -e\ntest "$*" = "build --release --locked --bin migma-eraser"\ntest -f src/main.rs -a -f Cargo.lock\ninstall -D /built target/release/migma-eraser\n' > "$work/base/cargo"
printf 'FROM %s\nCOPY built /built\nCOPY cargo /usr/local/bin/cargo\nRUN chmod 755 /usr/local/bin/cargo\n' "$image" > "$work/base/Dockerfile"
docker build -q -t migma-eraser-rust:local "$work/base" > /dev/null
# The old builder does not know Dockerfile.dockerignore: it is given what that lets through.
mkdir "$work/context"
sed -n 's/^!//p' deploy/Dockerfile.dockerignore | xargs cp -r -t "$work/context"
docker build -q -f deploy/Dockerfile -t migma-eraser:test --build-arg RUST_IMAGE=migma-eraser-rust:local --build-arg RUNTIME_IMAGE="$image" "$work/context" > /dev/null
hardened=(--rm --read-only --cap-drop ALL --security-opt no-new-privileges)
docker run "${hardened[@]}" migma-eraser:test --version
# As a user who may write nowhere but to its journal's folder. (No broker is there, so that other checks fail.)
docker volume create eraser-journal > /dev/null
docker run "${hardened[@]}" -v eraser-journal:/var/lib/migma-eraser -e MIGMA_API_KEY=k -e MIGMA_ERASER__AMQP__URL=amqp://127.0.0.1:1/%2f \
    migma-eraser:test check > "$work/check" || true
grep -E '^ok +journal .*/var/lib/migma-eraser/journal.db' "$work/check" || { cat "$work/check" >&2; exit 1; }
# And it makes it there, before it looks for the broker in vain, which it does until it is told to stop.
worker=$(docker run -d "${hardened[@]}" -v eraser-journal:/var/lib/migma-eraser -e MIGMA_API_KEY=k \
    -e MIGMA_ERASER__AMQP__URL=amqp://127.0.0.1:1/%2f -e MIGMA_ERASER__MIGMA__BASE_URL=http://127.0.0.1:1 migma-eraser:test)
for _ in $(seq 120); do
    docker run --rm -v eraser-journal:/j --entrypoint ls "$image" -ln /j > "$work/files"
    if grep -q ' journal.db$' "$work/files"; then break; fi
    sleep 0.5
done
docker logs "$worker" > "$work/run" 2>&1 || true
docker stop "$worker" > /dev/null
grep -E '^-rw------- +1 65532 +65532 .* journal.db$' "$work/files" || { cat "$work/run" "$work/files" >&2; exit 1; }
[ "$(docker inspect -f '{{.Config.User}} {{.Config.Entrypoint}} {{.Config.Cmd}}' migma-eraser:test)" = "65532:65532 [/usr/local/bin/migma-eraser] [run]" ]
docker volume rm eraser-journal > /dev/null
docker image rm migma-eraser:test migma-eraser-rust:local > /dev/null
echo "the image holds"
