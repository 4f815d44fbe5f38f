#!/bin/sh
# The whole pipeline at toy size, with synthetic people: data set -> two training stages -> an animated
# portrait -> scores against the truth. Needs nothing but this repository.
#   launch/demo_train.sh RUN
set -eu
run=$1

durian synth --out "$run/dataset" --people 64 --cases 4
durian check "$run/dataset"
durian train --config configs/tiny.py:stage1 --workdir "$run/stage1" \
    --config.data.path="$run/dataset" --config.steps=300
durian train --config configs/tiny.py:stage2 --workdir "$run/stage2" \
    --config.data.path="$run/dataset" --config.init_from="$run/stage1" --config.steps=40

# Three people who are in no training clip: a portrait, somebody else's hair, the motion of a third.
case="$run/dataset/counterfactual/00000"
durian animate --portrait "$case/portrait.png" --portrait-mask "$case/portrait_mask.png" \
    --attribute "$case/attribute_0.png:hair:$case/attribute_0_mask.png" \
    --driving "$case/driving.mp4" --checkpoint "$run/stage2" --out "$run/video.mp4"
rm -rf "$run/report"
durian evaluate --protocol counterfactual --dataset "$run/dataset" --checkpoint "$run/stage2" \
    --out "$run/report"

echo
echo "people of the data set:           $run/dataset/people.png"
echo "cases and their truth:            $run/dataset/counterfactual.png"
echo "loss curves:                      $run/stage1/loss.png $run/stage2/loss.png"
echo "video:                            $run/video.mp4"
echo "portrait|attribute|driver|result: $run/video_grid.mp4"
echo "scores:                           $run/report/report.md"
