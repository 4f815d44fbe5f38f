#!/usr/bin/env bash
# A run on TPU VMs: gets the machines, installs this checkout on all of them, trains, and does so
# again when the machines were taken away.
#   TPU=NAME ZONE=us-east5-a launch/tpu_pod.sh durian train --config ... --workdir SHARED/RUN
#
# TPU       name of the TPU, and of its queued resource
# ZONE      its zone
# TYPE      accelerator type (default v5litepod-16)
# IMAGE     runtime version (default v2-alpha-tpuv5-lite)
# SPOT      1: cheap machines that may be taken away (default 1)
# PREPARE   a command for all machines before the run, such as mounting the shared folder
# LOGS      folder here for the logs of all machines (default logs/NAME)
# POLL      seconds between two looks at the run (default 30)
#
# The run goes on without this script; started again meanwhile, it follows that run. It ends with
# the exit code of the run. The machines stay, and cost: gcloud compute tpus queued-resources delete NAME
# --zone ZONE --force.
set -euo pipefail

: "${TPU:?name the TPU}" "${ZONE:?name its zone}"
type=${TYPE:-v5litepod-16} image=${IMAGE:-v2-alpha-tpuv5-lite} logs=${LOGS:-logs/$TPU}
if [ $# -eq 0 ]; then
    echo "launch/tpu_pod.sh: no command: write it after the name of this file" >&2
    exit 2
fi
cd "$(dirname "$0")/.."

say() { echo "launch/tpu_pod.sh: $*"; }
resource() { gcloud compute tpus queued-resources "$1" "$TPU" --zone="$ZONE" "${@:2}"; }
state() { resource describe --format='value(state.state)' 2>/dev/null || echo MISSING; }
on() { # WORKER COMMAND
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}
copy() { # OPTIONS... FROM TO
    gcloud compute tpus tpu-vm scp --zone="$ZONE" --recurse "$@"
}

# Ends with the machines ready, new ones if those of before are gone.
obtain() {
    local now
    while now=$(state) && [ "$now" != ACTIVE ]; do
        case $now in
            SUSPENDED | FAILED)
                say "the machines are gone ($now): asking for others"
                resource delete --force --quiet
                ;;
            MISSING)
                local spot=()
                [ "${SPOT:-1}" != 1 ] || spot=(--spot)
                resource create --node-id="$TPU" --accelerator-type="$type" \
                    --runtime-version="$image" ${spot[@]+"${spot[@]}"}
                ;;
            *) say "waiting for the machines ($now)" ;;
        esac
        sleep "${POLL:-30}"
    done
}

install() {
    local archive
    archive=$(mktemp -d)/durian.tar.gz
    git archive --format=tar.gz --output="$archive" HEAD &&
        copy --worker=all "$archive" "$TPU:durian.tar.gz" && on all "set -e
        mkdir -p durian && tar -xzf durian.tar.gz -C durian
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --allow-existing --python 3.12 durian/.venv
        python3 -m uv pip install --quiet --python durian/.venv/bin/python -e 'durian[tpu,stores]'
        ${PREPARE:-true}"
}

# Each machine runs the command on its own, keeps its process id, what it says and the code it ends
# with. The id is there before this is over, and the code at once whole: who looks afterwards sees a
# run.
start() {
    local command
    command=$(printf '%q ' "$@")
    on all "set -e
        cd durian && rm -f exit_code pid && : >output.log
        nohup setsid bash -c 'export PATH=\$PWD/.venv/bin:\$PATH; $(
        # Quotes inside the quotes of bash -c.
        printf '%s' "$command" | sed "s/'/'\\\\''/g"
    ) >output.log 2>&1; echo \$? >code && mv code exit_code' >/dev/null 2>&1 </dev/null &
        echo \$! >pid"
}

# Code of the run, that of the first machine, which ends with the others; RUNNING, NONE when there is
# no run or it vanished without a code, LOST when the machine does not answer. A run that ends
# between the first two questions has left its code by the third.
code() {
    local now
    now=$(on 0 "if ! test -e durian/exit_code && kill -0 \$(cat durian/pid); then echo RUNNING
        elif test -e durian/exit_code; then cat durian/exit_code
        else echo NONE; fi" 2>/dev/null) || now=LOST
    # A connection that breaks may leave half an answer, or none.
    [[ $now =~ ^(RUNNING|NONE|[0-9]+)$ ]] || now=LOST
    echo "$now"
}

# The same, LOST only when the machine does not answer for a while: one failure of ssh is no reason
# to start a second run over the first, and new machines may not answer at once.
settled_code() {
    local now try
    for try in {1..10}; do
        now=$(code)
        [ "$now" = LOST ] || break
        [ "$try" = 10 ] || sleep "${POLL:-30}"
    done
    echo "$now"
}

follow() {
    local now
    while now=$(code) && [[ $now = RUNNING || $now = LOST ]]; do
        if [ "$now" = LOST ] && [ "$(state)" != ACTIVE ]; then
            echo LOST
            return
        fi
        sleep "${POLL:-30}"
    done
    echo "$now"
}

fetch() {
    mkdir -p "$logs"
    local worker=0
    # One file a machine: output_0.log, output_1.log, ...
    while copy --worker="$worker" "$TPU:durian/output.log" "$logs/output_$worker.log" 2>/dev/null; do
        worker=$((worker + 1))
    done
    say "logs of $worker machines: $logs"
}

while true; do
    obtain
    found=$(settled_code)
    if [ "$found" = LOST ]; then
        # Taken away meanwhile, or out of reach from here while a run may go on.
        [ "$(state)" = ACTIVE ] || continue
        echo "launch/tpu_pod.sh: $TPU is ACTIVE but its first machine does not answer: see why ssh" \
            "fails, then start the same command again" >&2
        exit 1
    fi
    if [ "$found" != RUNNING ]; then
        # Nor need all of the machines answer when the first does.
        for try in 1 2 3 4 5; do
            install && break
            [ "$try" -lt 5 ] || exit 1
            sleep "${POLL:-30}"
        done
        start "$@"
    fi
    say "running; its words: gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=0 --command='tail -f durian/output.log'"
    ended=$(follow)
    fetch || true
    case $ended in
        # NONE: others have taken their place between two looks, or they were started anew.
        LOST | NONE) say "the machines were taken away or rebooted: once more" ;;
        75) say "interrupted and saved: once more" ;;
        *) exit "$ended" ;;
    esac
done
