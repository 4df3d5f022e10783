"""Scores during the training: what counts and which network is measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small
import torch

from autoseg import messages
from autoseg.bundle.networks import ReadyNetwork
from autoseg.cli import plan_and_preprocess, train
from autoseg.dataset.folds import Fold
from autoseg.evaluation.summary import read_summary
from autoseg.labels import LabelSet
from autoseg.plan import Inference
from autoseg.plugins.parts import NetworkInput
from autoseg.training import validation
from autoseg.training.interrupt import Interrupted, StopRequest
from autoseg.training.lesion_crop import crop_start


def test_all_cases_are_watched_or_some_spread_over_their_volumes():
    load = {"a": 5, "b": 1, "c": 9, "d": 3, "e": 7}
    cases = [SimpleNamespace(name=n, lesions=SimpleNamespace(volume_voxels=v)) for n, v in load.items()]
    job = SimpleNamespace(prepared=SimpleNamespace(fingerprint=SimpleNamespace(cases=cases)))
    assert validation.spread(job, sorted(load), "all") == ["b", "d", "a", "e", "c"]
    assert validation.spread(job, sorted(load), 3) == ["b", "a", "c"]


def validator(label, stop=None, *, view="whole", patch_size=(), context=(), image=None):
    """A validator whose only case has this label; the network says lesion everywhere."""
    image = np.zeros((1, *label.shape), np.float32) if image is None else image
    case = SimpleNamespace(image=image, label=label)
    lesions = SimpleNamespace(volume_voxels=1)
    inference = Inference(patch_size=[], mirror_axes=(), context=list(context))
    recipe = SimpleNamespace(
        validation=SimpleNamespace(cases=1, view=view), inference=inference, precision="auto"
    )
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    job = SimpleNamespace(
        plan=SimpleNamespace(
            recipe=recipe, label_set=labels, preprocessing=SimpleNamespace(normalisation=[], mask=None)
        ),
        prepared=SimpleNamespace(
            store=SimpleNamespace(read=lambda name: case),
            fingerprint=SimpleNamespace(cases=[SimpleNamespace(name="a", lesions=lesions)]),
        ),
        device=torch.device("cpu"),
        folder=Path("nowhere"),
    )
    stage = SimpleNamespace(leave_out=None, patch_size=list(patch_size), context=list(context))
    return validation.Validator(job, Fold(("b",), ("a",)), stage, stop or StopRequest())


class AllLesion(torch.nn.Module):
    def forward(self, image):
        return torch.cat([torch.zeros_like(image), torch.ones_like(image)], 1)


def ready():
    return ReadyNetwork(AllLesion(), NetworkInput(), {})


def test_ignored_voxels_are_not_scored():
    label = np.full((2, 4, 4), 1, np.int16)
    label[1] = 2
    assert validator(label)(ready()) == {"lesion": 1.0}
    label[1] = 0
    assert validator(label)(ready())["lesion"] == pytest.approx(2 / 3)


class Seen(torch.nn.Module):
    """Says lesion where the image is above 0.5; keeps what it was shown. Takes ``context`` voxels off each side."""

    def __init__(self, context=0):
        super().__init__()
        self.context, self.images = context, []

    def forward(self, image):
        self.images.append(image)
        middle = tuple(slice(self.context, n - self.context) for n in image.shape[2:])
        inner = image[(slice(None), slice(None), *middle)]
        return torch.cat([torch.zeros_like(inner), inner - 0.5], 1)


def numbered(shape):
    """An image whose voxels all differ, from 1 on."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, *shape)


@pytest.mark.parametrize("context", [0, 2])
def test_a_crop_around_the_lesion_is_seen_with_its_true_surroundings(context):
    """A lesion around (9, 4, 12): the 6 x 6 x 6 voxels from (6, 1, 9) on, and those around them."""
    image, label = numbered((16, 14, 18)), np.zeros((16, 14, 18), np.int16)
    label[8:11, 3:6, 11:14] = 1
    network = Seen(context)
    measure = validator(label, view="lesion_crop", patch_size=(6, 6, 6), context=(context,) * 3, image=image)
    scores = measure(ReadyNetwork(network, NetworkInput(), {}))
    padded = np.pad(image[0], context)
    (seen,) = network.images
    assert np.array_equal(seen[0, 0], padded[6 : 12 + 2 * context, 1 : 7 + 2 * context, 9 : 15 + 2 * context])
    assert scores["lesion"] == pytest.approx(2 * 27 / (27 + 216))  # all of the crop is called lesion


def test_of_a_case_that_is_smaller_than_the_crop_only_the_case_counts():
    image, label = numbered((4, 14, 18)), np.ones((4, 14, 18), np.int16)
    network = Seen()
    measure = validator(label, view="lesion_crop", patch_size=(8, 6, 6), image=image)
    assert measure(ReadyNetwork(network, NetworkInput(), {}))["lesion"] == 1
    (seen,) = network.images
    assert seen.shape[2:] == (8, 6, 6)
    assert np.array_equal(seen[0, 0, 2:6], image[0, :, 3:9, 5:11])  # medians 6.5 and 8.5, cut to 6 and 8
    assert not seen[0, 0, :2].any() and not seen[0, 0, 6:].any()


def test_a_2d_network_sees_a_part_of_the_plane_in_the_middle_of_the_lesion():
    image, label = numbered((5, 14, 18)), np.zeros((5, 14, 18), np.int16)
    label[3, 4:7, 8:11] = 1
    network = Seen()
    measure = validator(label, view="lesion_crop", patch_size=(4, 6), image=image)
    assert measure(ReadyNetwork(network, NetworkInput((1, 1)), {}))["lesion"] == pytest.approx(18 / (9 + 24))
    (seen,) = network.images
    assert np.array_equal(seen[0, 0], image[0, 3, 3:7, 6:12])


def test_without_a_lesion_the_middle_is_seen_and_that_is_said(caplog):
    image, label = numbered((16, 14, 18)), np.zeros((16, 14, 18), np.int16)
    label[0, 0, 0] = 2  # the ignore label is no lesion
    network = Seen()
    measure = validator(label, view="lesion_crop", patch_size=(6, 6, 7), image=image)
    with caplog.at_level("INFO", "autoseg"):
        for _ in range(2):
            measure(ReadyNetwork(network, NetworkInput(), {}))
    assert np.array_equal(network.images[0][0, 0], image[0, 5:11, 4:10, 5:12])
    said = [record.message for record in caplog.records]
    assert said == ["a has no lesion: the crop in its middle is watched"]


@pytest.mark.parametrize(
    ("voxel", "start"),
    [
        ((94, 116, 98), (10, 30, 26)),  # the middle of an ATLAS scan: the crop of the prediction
        ((90, 100, 80), (6, 14, 8)),
        ((0, 232, 100), (0, 61, 28)),  # the last place, which the authors' code never takes
        ((188, 85, 196), (21, 0, 53)),
    ],
)
def test_the_published_crop_by_hand(voxel, start):
    """Half a crop of 168 x 172 x 144 before the lesion, within 189 x 233 x 197 voxels."""
    label = np.zeros((189, 233, 197), np.uint8)
    label[voxel] = 1
    assert crop_start(label, (168, 172, 144), None) == (start, True)


def test_it_stops_when_asked():
    stop = StopRequest()
    stop.set(15)
    with pytest.raises(Interrupted):
        validator(np.zeros((2, 4, 4), np.int16), stop)(ready())


@pytest.mark.slow
def test_a_second_network_is_trained_and_kept_and_only_the_main_one_is_measured(root):
    """The second network of the plan serves post-processing; whole volumes mean nothing to it."""
    path = next((root / "preprocessed").glob("*/unet/plan.json"))
    content = json.loads(path.read_text())
    content["networks"]["second"] = content["networks"]["main"]
    first = content["recipe"]["stages"][0]
    content["recipe"]["stages"].append({**first, "name": "extra", "network": "second"})
    path.write_text(json.dumps(content))
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    scored = {(entry["stage"], bool(entry["validation_dice"])) for entry in runs.log(root)}
    assert scored == {("train", True), ("extra", False)}
    names = {path.name for path in (runs.fold(root) / "weights").iterdir()}
    assert names == {f"member0.{n}.safetensors" for n in ("train", "train.best", "extra")}


@pytest.mark.slow
@pytest.mark.parametrize("other_reader", [True, False])
def test_the_masks_that_dataset_json_lists_are_scored(tmp_path, monkeypatch, other_reader):
    """labelsTr holds another reader's masks under the same names, or nothing."""
    raw = small.dataset(tmp_path / "raw", n=5, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    files = {}
    (raw / "reader2").mkdir()
    for path in sorted((raw / "labelsTr").iterdir()):
        name = path.name.removesuffix(".nii.gz")
        path.rename(raw / "reader2" / f"{name}_r2.nii.gz")
        if other_reader:
            small.write(path, np.zeros((10, 24, 24), np.uint8))
        files[name] = {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"reader2/{name}_r2.nii.gz"}
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "dataset": files}))
    settings = [*small.TINY, "stages.0.epochs=1"]
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *settings]) == 0
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    scored = {case.name: case for case in read_summary(runs.fold(tmp_path) / "validation").cases}
    assert scored
    for name, case in scored.items():
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / files[name]["label"])))
        assert case.classes["lesion"]["voxels_truth"] == mask.sum() > 0


@pytest.mark.slow
def test_what_one_tile_in_the_centre_loses_is_said_when_prepared_and_with_the_scores(tmp_path, monkeypatch):
    """Counted in the files of the truth: the working grid is theirs."""
    raw = small.dataset(tmp_path / "raw", n=5, n_test=0)
    runs.set_folders(monkeypatch, tmp_path)
    centre = ["inference.tiles=centre", "inference.patch_size=[4, 8, 8]", "stages.0.epochs=1"]
    said = messages.warning_counts()
    assert (
        plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY, *centre]) == 0
    )
    counts = {}
    for path in sorted((raw / "labelsTr").iterdir()):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
        counts[path.name.split(".")[0]] = (mask.sum() - mask[3:7, 8:16, 8:16].sum(), mask.sum())
    lost, total = map(sum, zip(*counts.values(), strict=True))
    assert lost > 0
    assert any(f"{lost} label voxels of {total} (" in text for text in messages.warnings_since(said))
    assert train.main(["1", "0", "-device", "cpu"]) == 0
    summary = read_summary(runs.fold(tmp_path) / "validation")
    lost, total = map(sum, zip(*(counts[case.name] for case in summary.cases), strict=True))
    assert any(text.startswith(f"{lost} label voxels of {total} (") for text in summary.warnings)
