#!/bin/sh
# The whole job on synthetic phantoms: raw files to scored masks and pictures. Called by `make demo`.
set -eu
where=${1:-.demo}
rm -rf "$where"
mkdir -p "$where"
export autoseg_raw="$where/raw" autoseg_preprocessed="$where/preprocessed" autoseg_results="$where/results"

say() { printf '\n$ %s\n' "$*"; "$@"; }

# 24 phantoms to train on, 6 that the model never sees
say autoseg_make_phantom rat_t2 -n 24 --test 6 -o "$autoseg_raw" --seed 1 --scale 0.25 -id 900
data="$autoseg_raw/Dataset900_PhantomRatT2"

# What the dataset is, what the plan is and why. Changed for two CPU cores: a narrow network, a short schedule with Adam, which
# gets off the ground in it, and Dice over the batch, which learns from animals without a lesion as well.
say autoseg_plan_and_preprocess -d 900 -pl unet --set \
    'networks.main.arguments.features_per_stage=[8,16,32,64,64]' \
    stages.train.epochs=36 stages.train.iterations_per_epoch=20 \
    stages.train.optimiser.name=adam 'stages.train.optimiser.arguments={"lr":0.004}' \
    stages.train.loss.arguments.batch_dice=true validation.every=6
say autoseg_train 900 0 -device cpu
say autoseg_predict -i "$data/imagesTs" -o "$where/masks" -d 900 -device cpu
say autoseg_evaluate -p "$where/masks" -g "$data/labelsTs" -i "$data/imagesTs"
