#!/usr/bin/env bash
# One run in several processes on this machine, on its CPUs: what a pod does, in small.
#   launch/local.sh -n 2 [--devices 4] -- durian train --config ... --workdir ...
#
# -n N         processes
# --devices D  devices of each process (default 1)
#
# The output is that of process 0, and what the others say on stderr, marked [1], [2], ...
# SIGTERM and SIGINT go to all processes. The exit code is the first that is not 0; 75 means that
# the run was interrupted and saved. When one process fails, the others have 10 s to end.
set -euo pipefail

fail() {
    echo "launch/local.sh: $1" >&2
    exit 2
}

processes='' devices=1
while [ $# -gt 0 ]; do
    case $1 in
        -n) processes=${2-} ;;
        --devices) devices=${2-} ;;
        --) shift && break ;;
        *) fail "unknown option $1: see the head of this file" ;;
    esac
    shift $(($# > 1 ? 2 : 1))
done
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "-n '$processes': give a number of processes"
[[ $devices =~ ^[1-9][0-9]*$ ]] || fail "--devices '$devices': give a number of devices"
[ $# -gt 0 ] || fail "no command: write it after --"

port=$("${PYTHON:-python3}" -c '
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_COORDINATOR_BIND_ADDRESS=127.0.0.1:$port
export JAX_NUM_PROCESSES=$processes
# Where there is a proxy, the processes must not ask it for each other.
if env | grep -qi '^https\{0,1\}_proxy='; then
    export no_proxy="${no_proxy:+$no_proxy,}127.0.0.1"
fi

mark() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do
        echo "[$1] $line" >&2
    done
}

pids=()
# To the processes, not to the workers that read data for them: they are needed to the end.
# shellcheck disable=SC2329 # called by trap
signal_all() {
    for pid in "${pids[@]}"; do
        kill -s "$1" "$pid" 2>/dev/null || true
    done
}
kill_all() {
    for pid in "${pids[@]}"; do
        kill -s KILL -- "-$pid" 2>/dev/null || true
    done
}
# Each process leads a group of its own: a signal from the keyboard comes here alone and is passed
# on once, and SIGKILL takes the workers along.
set -m
trap 'signal_all TERM' TERM
trap 'signal_all INT' INT
trap kill_all EXIT

for ((i = 0; i < processes; i++)); do
    if [ "$i" = 0 ]; then
        JAX_PROCESS_ID=$i "$@" </dev/null &
    else
        JAX_PROCESS_ID=$i "$@" </dev/null >/dev/null 2> >(mark "$i") &
    fi
    pids+=("$!")
done

code=0 deadline=''
running=("${pids[@]}")
while [ ${#running[@]} -gt 0 ]; do
    still=()
    for pid in "${running[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then
            still+=("$pid")
            continue
        fi
        ended=0
        wait "$pid" 2>/dev/null || ended=$?
        if [ "$ended" != 0 ]; then
            [ "$code" != 0 ] || code=$ended
            deadline=${deadline:-$((SECONDS + 10))}
        fi
    done
    running=(${still[@]+"${still[@]}"})
    if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
        kill_all
    fi
    sleep 0.2
done
exit "$code"
