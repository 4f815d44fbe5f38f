#!/bin/sh
# The whole road at toy size: clips -> data set -> two training stages -> an animated portrait.
#   launch/demo.sh CLIPS RUN
set -eu
clips=$1
run=$2

if [ -z "$clips" ] || [ ! -d "$clips" ]; then
    echo "demo: no clips found: put three or more talking-head clips (.mp4) into clips/, or say" >&2
    echo "      make demo CLIPS=FOLDER" >&2
    exit 2
fi
set --
for labels in "$clips/labels.csv" "$clips/index.csv" "$clips/../labels.csv" "$clips/../index.csv"; do
    if [ -f "$labels" ]; then
        set -- --labels "$labels"
        break
    fi
done

durian prepare "$clips" --out "$run/dataset" --size 128 "$@"
durian check "$run/dataset"
durian train --config configs/tiny.py:stage1 --workdir "$run/stage1" \
    --config.data.path="$run/dataset"
durian train --config configs/tiny.py:stage2 --workdir "$run/stage2" \
    --config.data.path="$run/dataset" --config.init_from="$run/stage1"

# A clip stands for a photo by its first frame: two people, and the motion of a third.
portrait=$(ls "$clips"/*.mp4 | sed -n 1p)
attribute=$(ls "$clips"/*.mp4 | tail -n 1)
driving=$(ls "$clips"/*.mp4 | sed -n 2p)
durian animate --portrait "$portrait" --attribute "$attribute:hair" --driving "$driving" \
    --checkpoint "$run/stage2" --out "$run/video.mp4"

echo
echo "data set, to be judged by eye: $run/dataset/contact_sheet.png"
echo "loss curves:                   $run/stage1/loss.png $run/stage2/loss.png"
echo "video:                         $run/video.mp4"
echo "portrait|attribute|driver|result: $run/video_grid.mp4"
