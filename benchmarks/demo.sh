#!/bin/sh
# The whole job on synthetic phantoms: raw files to scored masks, pictures and a report. Called by `make demo`.
set -eu
where=${1:-demo}
if [ -e "$where" ] && [ ! -d "$where/raw" ]; then
    echo "$where is there already and no earlier demo: give another folder" >&2
    exit 1
fi
rm -rf "$where"
mkdir -p "$where/raw"
export autoseg_raw="$where/raw" autoseg_preprocessed="$where/preprocessed" autoseg_results="$where/results"

say() { printf '\n$ %s\n' "$*"; "$@"; }

# 24 phantoms to train on, 6 that the model never sees
say autoseg_make_phantom rat_t2 -n 24 --test 6 -o "$autoseg_raw" --seed 1 --scale 0.25 -id 900
data="$autoseg_raw/Dataset900_PhantomRatT2"

# What the dataset is, what the plan is and why: the quick plan, which trains in minutes on two CPU cores
say autoseg_plan_and_preprocess -d 900 -pl unet --set planner.length=quick
say autoseg_train 900 0 -device cpu
say autoseg_predict -i "$data/imagesTs" -o "$where/masks" -d 900 -device cpu
say autoseg_evaluate -p "$where/masks" -g "$data/labelsTs" -i "$data/imagesTs"
say autoseg_report "$where/masks"
