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
    debootstrap --variant=minbase --include=rabbitmq-server "$VERSION_CODENAME" "$work/root" ${mirror:+"$mirror"} > "$work/debootstrap.log" 2>&1 \
        || { tail -20 "$work/debootstrap.log" >&2; exit 1; }
    printf 'listeners.tcp.default = 5672\nloopback_users = none\nlog.console = true\n' > "$work/root/etc/rabbitmq/rabbitmq.conf"
    tar -C "$work/root" -c . | docker import \
        --change 'ENTRYPOINT ["/usr/lib/rabbitmq/bin/rabbitmq-server"]' --change 'EXPOSE 5672' \
        --change 'ENV HOME=/var/lib/rabbitmq RABBITMQ_NODENAME=rabbit@localhost' - "$image" > /dev/null
    rm -rf "$work/root"
fi

echo "== the main job, through a container"
CONTAINER_IMAGE=$image cargo test --locked --test container -- --nocapture
