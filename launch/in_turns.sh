#!/bin/sh
# Training where a command may take minutes only: each call trains for SECONDS, saves, and leaves the
# averaged weights so far in OUT as a folder of float16 files. The next call goes on from WORKDIR.
#   launch/in_turns.sh SECONDS WORKDIR OUT --config configs/small.py:stage1 --config.data.path=DATASET
set -eu
if [ $# -lt 4 ]; then
    echo "in_turns.sh: write SECONDS WORKDIR OUT and what durian train takes" >&2
    exit 2
fi
seconds=$1 workdir=$2 out=$3
shift 3
code=0
# SIGTERM makes a run save and end with 75, or with 143 if it comes before anything is there to save.
timeout --preserve-status --signal=TERM "$seconds" durian train --workdir "$workdir" "$@" ||
    code=$?
case $code in
    0 | 75 | 143) ;;
    *) exit "$code" ;;
esac
# A first turn too short for a step has saved nothing; the next one finds its programs compiled.
if [ "$code" -ne 0 ] && [ -z "$(ls "$workdir/checkpoints" 2>/dev/null)" ]; then
    exit "$code"
fi
# The weights of the call before stay until the new ones are whole.
out=${out%/}
rm -rf "$out.new"
durian convert --to safetensors --half --checkpoint "$workdir" --out "$out.new"
rm -rf "$out"
mv "$out.new" "$out"
