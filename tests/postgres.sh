#!/usr/bin/env bash
# Starts a private PostgreSQL on a free port, in a directory of its own and as an unprivileged user; prints its URL, and
# stops it when standard input ends (so that it never outlives who started it). Needs PostgreSQL's programs, not a
# running server.
#
# Orders, one a line on standard input, each answered by a line `done`:
#   stop      stops it in order, which ends all connections
#   kill      ends it with SIGKILL, as a crash would
#   start     starts it again
# POSTGRES_TLS_DIR=... with cert.pem and key.pem makes it take TLS alone, with the password hunter2.
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || true)")
[ -x "$bin/initdb" ] || { echo "no PostgreSQL; apt-get install postgresql" >&2; exit 1; }

free_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
    done
    exit 1
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-postgres.XXXXXX")
port=$(free_port)
# It refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" > /dev/null 2>&1 || user=nobody
    chown "$user" "$dir"
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
fi
cd "$dir"
auth=(--auth trust) tls=() url=postgres://eraser@127.0.0.1:$port/eraser
if [ -n "${POSTGRES_TLS_DIR:-}" ]; then
    echo hunter2 > "$dir/password"
    cp "$POSTGRES_TLS_DIR/cert.pem" "$POSTGRES_TLS_DIR/key.pem" "$dir"
    # The server takes no key that others could read.
    chmod 600 "$dir/key.pem"
    [ ${#as[@]} = 0 ] || chown "$user" "$dir/key.pem" "$dir/cert.pem" "$dir/password"
    auth=(--auth scram-sha-256 "--pwfile=$dir/password")
    tls=(-c ssl=on -c "ssl_cert_file=$dir/cert.pem" -c "ssl_key_file=$dir/key.pem")
    url=postgres://eraser:hunter2@localhost:$port/eraser
    export PGPASSWORD=hunter2 PGSSLMODE=require
fi
"${as[@]}" "$bin/initdb" --pgdata "$dir/data" --username eraser "${auth[@]}" --encoding UTF8 --locale C > "$dir/init" 2>&1 \
    || { cat "$dir/init" >&2; exit 1; }
[ ${#tls[@]} = 0 ] || sed -i 's/^host /hostssl /' "$dir/data/pg_hba.conf"
server=""
start() {
    # Durable as ever: what is tested is what a crash leaves.
    "${as[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c max_connections=400 -c shared_buffers=32MB -c log_min_messages=fatal \
        "${tls[@]}" > "$dir/out" 2>&1 < /dev/null &
    server=$!
    for _ in $(seq 600); do
        "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && return
        kill -0 "$server" 2>/dev/null || { cat "$dir/out" >&2; exit 1; }
        sleep 0.1
    done
    cat "$dir/out" >&2
    echo "PostgreSQL did not start" >&2
    exit 1
}
finish() {
    [ -n "$server" ] || return 0
    kill "$1" "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=""
}
# A fast stop: it ends connections instead of waiting for them.
trap 'finish -INT; cd /; rm -rf "$dir"' EXIT
trap 'exit 0' TERM INT

start
"$bin/createdb" -h 127.0.0.1 -p "$port" -U eraser eraser
echo "TEST_POSTGRES_URL=$url"
while read -r order; do
    case "$order" in
        stop) finish -INT ;;
        kill) finish -KILL ;;
        start) start ;;
        *) echo "what is '$order'?" >&2; exit 2 ;;
    esac
    echo done
done
