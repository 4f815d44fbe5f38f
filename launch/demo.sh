#!/bin/sh
# What the model of the package does, on synthetic people: somebody's hair, glasses, both, and a
# mixture of two hair colours, each beside its rendered truth; then the scores. Nothing is trained.
#   launch/demo.sh RUN
set -eu
run=$1
examples=durian_jax/examples

# The example's portrait, what it loses, and its driver.
animate() {
    name=$1 example=$examples/$2
    shift 2
    durian animate --portrait "$example/portrait.png" \
        --portrait-mask "$example/portrait_mask.png" "$@" \
        --driving "$example/driving.mp4" --out "$run/$name.mp4"
}
mkdir -p "$run"
hair="$examples/0000/attribute_0.png:hair:$examples/0000/attribute_0_mask.png"
glasses="$examples/0001/attribute_0.png:glasses:$examples/0001/attribute_0_mask.png"
animate hair 0000 --attribute "$hair"
echo "the first video is there: $run/hair_grid.mp4 (portrait | attribute | driver | result)"
animate glasses 0001 --attribute "$glasses"
animate both 0002 --attribute "$hair" --attribute "$glasses"
other="$examples/0003/attribute_1.png:hair:$examples/0003/attribute_1_mask.png"
durian interpolate --portrait "$examples/0003/portrait.png" \
    --portrait-mask "$examples/0003/portrait_mask.png" --from "$hair" --to "$other" --over-time \
    --driving "$examples/0003/driving.mp4" --out "$run/interpolation.mp4"
durian evaluate --protocol counterfactual --cases "$examples" --checkpoint small \
    --out "$run/report"
python -m benchmarks.showcase "$examples" "$run/report/predictions" "$run/demo.webp"

echo
echo "videos:                       $run/hair_grid.mp4, glasses, both, interpolation"
echo "beside the truth, moving:     $run/demo.webp"
echo "beside the truth, in frames:  $run/report/sheets"
echo "scores:                       $run/report/report.md"
