# Starts and stops the proxies that tests/load compares, and the echo upstream behind them. Sourced, not run.
#
# After `prepare` and `start PEER`, $proxy_pid and $proxy_port are those of the running proxy; `stop` ends it and its
# upstream. All files are in $work, which the trap removes, together with all processes.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
load=${LOAD:-${CARGO_TARGET_DIR:-$root/target}/dist/pulsegate-load}
pulsegate=${PULSEGATE:-${CARGO_TARGET_DIR:-$root/target}/dist/pulsegate}
install_command="apt-get install -y nginx-light haproxy nghttp2-client"

work=
proxy_pid=
upstream_pid=
# The port of the generator's own app, if it serves one; there is no echo upstream then.
app_port=
# The command before a proxy's own, e.g. valgrind; and the timeout of a start.
wrapper=()
start_deadline=15

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

note() {
    printf '%s\n' "$*" >&2
}

# prepare PEER...: checks that the peers are installed, builds, creates the certificate.
prepare() {
    local peer
    for peer in "$@"; do
        case $peer in
        nginx | haproxy)
            # Debian keeps both in /usr/sbin, which is not in every user's path.
            PATH=$PATH:/usr/sbin command -v "$peer" >/dev/null ||
                fail "$peer is not installed: run \`$install_command\` (or tests/load/run --install), or leave it out with --peers"
            ;;
        pulsegate | pulsegate+*) ;;
        *) fail "unknown peer $peer: expected nginx, haproxy or pulsegate" ;;
        esac
    done
    PATH=$PATH:/usr/sbin

    local packages=()
    if [[ -z ${LOAD:-} ]]; then
        packages+=(-p pulsegate-load)
    fi
    if [[ " $* " == *" pulsegate"* && -z ${PULSEGATE:-} ]]; then
        packages+=(-p pulsegate)
    fi
    if ((${#packages[@]})); then
        note "building"
        (cd "$root" && cargo build --profile dist --quiet "${packages[@]}")
    fi

    ulimit -n "$(ulimit -Hn)"
    files=$(ulimit -n)
    if [[ $files == unlimited ]] || ((files > 20000)); then
        files=20000
    fi

    work=$(mktemp -d)
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    "$load" cert "$work"

    # The proxy has a core to itself; the load and the upstream share another.
    local cores
    on_proxy=()
    on_load=()
    read -r -a cores < <(allowed_cores)
    if ((${PIN:-1})) && command -v taskset >/dev/null && ((${#cores[@]} > 1)); then
        on_proxy=(taskset -c "${cores[0]}")
        on_load=(taskset -c "${cores[1]}")
    fi
}

# The numbers of the cores that this shell may use: in a container they often do not start at 0.
allowed_cores() {
    local ranges range core
    IFS=, read -r -a ranges < <(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
    for range in "${ranges[@]}"; do
        for ((core = ${range%-*}; core <= ${range#*-}; core++)); do
            printf '%s ' "$core"
        done
    done
    printf '\n'
}

cleanup() {
    stop
    if [[ -n $work ]]; then
        rm -rf "$work"
    fi
}

# start PEER [NAME=VALUE...]: starts the proxy, with that environment, before a new upstream. pulsegate+PROFILE is
# pulsegate with that heartbeat.
start() {
    local peer=$1 upstream_port config command=()
    shift
    if [[ $peer == pulsegate+* ]]; then
        set -- PULSEGATE__HEARTBEAT__PROFILE="${peer#pulsegate+}" "$@"
        peer=pulsegate
    fi

    upstream_port=$app_port
    if [[ -z $app_port ]]; then
        : >"$work/upstream"
        "${on_load[@]}" "$load" echo-upstream --listen 127.0.0.1:0 >"$work/upstream" &
        upstream_pid=$!
        wait_until "the echo upstream" "$upstream_pid" test -s "$work/upstream"
        upstream_port=$(<"$work/upstream")
        upstream_port=${upstream_port##*:}
    fi
    proxy_port=$("$load" free-port)

    case $peer in
    nginx)
        config=$work/nginx.conf
        command=(nginx -e stderr -p "$work" -c "$config" ${NGINX_GLOBALS:+-g "$NGINX_GLOBALS"})
        ;;
    haproxy)
        config=$work/haproxy.cfg
        command=(haproxy -db -f "$config")
        ;;
    pulsegate)
        config=$work/pulsegate.toml
        command=("$pulsegate" run -c "$config")
        ;;
    esac
    # HAProxy wants two files for a session and some for itself.
    sed -e "s|@PORT@|$proxy_port|; s|@UPSTREAM@|$upstream_port|; s|@DIR@|$work|; s|@CONNECTIONS@|$files|" \
        -e "s|@SESSIONS@|$((files / 2 - 100))|; s|@BUFFER@|${PROXY_BUFFER:-16k}|" \
        "$here/${config##*/}" >"$config"

    "${on_proxy[@]}" env "$@" "${wrapper[@]}" "${command[@]}" >"$work/$peer.log" 2>&1 &
    proxy_pid=$!
    proxy_log=$work/$peer.log
    wait_until "$peer" "$proxy_pid" listens "$proxy_port"
}

# Ends the proxy and the upstream: with SIGTERM first, with SIGKILL after 10 s.
stop() {
    local pid tries
    for pid in $proxy_pid $upstream_pid; do
        for ((tries = 0; tries < 200; tries++)); do
            # The signal is repeated: nginx without a master process may miss the first one under valgrind.
            if ((tries % 50 == 0)); then
                kill -TERM "$pid" 2>/dev/null || break
            fi
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        if ((tries == 200)); then
            kill -KILL "$pid" 2>/dev/null || true
        fi
        wait "$pid" 2>/dev/null || true
    done
    proxy_pid=
    upstream_pid=
}

# wait_until WHAT PID COMMAND...: waits until the command succeeds; fails if the process ends.
wait_until() {
    local what=$1 pid=$2 deadline=$((SECONDS + start_deadline))
    shift 2
    until "$@" 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null; then
            fail "$what ended at its start: $(tail -n 5 "${proxy_log:-/dev/null}" 2>/dev/null)"
        fi
        if ((SECONDS >= deadline)); then
            fail "$what is not ready after $start_deadline s: $(tail -n 5 "${proxy_log:-/dev/null}" 2>/dev/null)"
        fi
        sleep 0.05
    done
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1")
}

# generate SCENARIO [OPTION...]: one run against the running proxy; prints its figures.
generate() {
    local scenario=$1
    shift
    "${on_load[@]}" "$load" "$scenario" "https://localhost:$proxy_port/" --ca "$work/ca.pem" --pid "$proxy_pid" \
        --sources 8 "$@"
}

# cross_check VERSION SIZE REQUESTS: runs h2load, an independent generator, against the running proxy: bodies over HTTP
# VERSION (h1 or h2) with the same cryptography; prints figures.
cross_check() {
    local streams=(-c 4 -m 16) alpn=h2 before after rate
    if [[ $1 == h1 ]]; then
        streams=(-c 64 -m 1) alpn=http/1.1
    fi
    before=$("$load" cpu "$proxy_pid")
    "${on_load[@]}" h2load "${streams[@]}" -n "$3" --npn-list="$alpn" --tls13-ciphers=TLS_AES_128_GCM_SHA256 \
        --groups=X25519 "https://localhost:$proxy_port/body/$2" >"$work/h2load" || return
    after=$("$load" cpu "$proxy_pid")
    # h2load exits with 0 whatever the responses are.
    grep -q ", $3 succeeded, 0 failed, 0 errored, 0 timeout" "$work/h2load" &&
        grep -q "^status codes: $3 2xx" "$work/h2load" || return
    rate=$(sed -n 's|^finished in .*, \([0-9.]*\) req/s.*|\1|p' "$work/h2load")
    printf 'requests_per_second %s\n' "$rate"
    awk -v spent=$((after - before)) -v count="$3" 'BEGIN { printf "cpu_us_per_request %.3f\n", spent / count }'
}

# Prints the measured versions for the reader of a table.
describe() {
    local peer versions=()
    for peer in "$@"; do
        case $peer in
        nginx) versions+=("$(nginx -v 2>&1 | sed 's|.*nginx/|nginx |')") ;;
        haproxy) versions+=("$(haproxy -v | sed -n '1s/^HAProxy version \([^ ]*\).*/HAProxy \1/p')") ;;
        pulsegate) versions+=("$("$pulsegate" --version 2>/dev/null || echo pulsegate)") ;;
        esac
    done
    local cpu
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    printf '%s; ' "${versions[@]}"
    printf '%s CPUs, %s; Linux %s\n' "$(nproc)" "${cpu:-unknown}" "$(uname -r)"
}
