"""What belongs to one fold: constants of its training cases, a part that only tests, a mask that says what counts."""

import json
import shutil

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small
from runs import fold

from autoseg.bundle.card import write_model_card
from autoseg.bundle.opening import open_model
from autoseg.cli import export_bundle, import_bundle, plan_and_preprocess, predict, train
from autoseg.inference.predictor import Predictor
from autoseg.preparation.prepared import open_prepared
from autoseg.preprocessing.fixed import FixedConstants, measure
from autoseg.preprocessing.normalised_store import NormalisedStore
from autoseg.sampling import clones
from autoseg.sampling.clones import draw_lesions

pytestmark = pytest.mark.slow

FIXED = 'preprocessing.normalisation=[{"scheme": "fixed", "spread": "mean_absolute_deviation"}]'
SHORT = ("stages.0.epochs=1", "stages.0.iterations_per_epoch=2")


def plan(*settings) -> int:
    options = ["-pl", "unet", "-np", "1", "--overwrite", "--set", *small.TINY, *settings]
    return plan_and_preprocess.main(["-d", "1", *options])


def trained(*settings) -> int:
    return train.main(["1", "0", "-device", "cpu", "--set", *SHORT, *settings])


@pytest.fixture
def root(tmp_path, monkeypatch):
    small.dataset(tmp_path / "raw", n=5, n_test=1)
    runs.set_folders(monkeypatch, tmp_path)
    return tmp_path


def split(root) -> dict:
    return json.loads((root / "preprocessed" / small.NAME / "splits.json").read_text())[0]


def test_constants_come_from_the_training_cases_of_the_fold_and_go_with_the_model(root, tmp_path):
    assert plan(FIXED) == 0 and trained() == 0
    prepared = open_prepared(root / "preprocessed", "1")
    written = FixedConstants.model_validate_json((fold(root) / "normalisation.json").read_text())
    assert written == measure(prepared.store, split(root)["train"], prepared.plan.preprocessing)
    values = np.concatenate([prepared.store.read(n).image[...].ravel() for n in split(root)["train"]])
    (channel,) = written.channels
    assert channel.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
    deviation = np.abs(values.astype(np.float64) - channel.mean).mean()
    assert channel.spread == pytest.approx(deviation, rel=1e-6)
    target = tmp_path / "model.zip"
    assert export_bundle.main(["-d", "1", "-o", str(target)]) == 0
    assert import_bundle.main([str(target), "--results", str(tmp_path / "other")]) == 0
    model = fold(root).parent
    copy = tmp_path / "other" / small.NAME / model.name
    assert open_model(copy).hash == open_model(model).hash
    changed = written.model_copy(update={"channels": (channel.model_copy(update={"mean": 0.0}),)})
    (copy / "fold_0" / "normalisation.json").write_text(changed.model_dump_json())
    write_model_card(copy)
    assert open_model(copy).hash != open_model(model).hash
    image = small.case(0)[0]
    images = [np.array(list(_seen(Predictor(folder, device="cpu"), image))) for folder in (model, copy)]
    np.testing.assert_allclose(images[1] - images[0], channel.mean / channel.spread, rtol=1e-4)


def _seen(predictor, image):
    """What the network is given."""
    from autoseg.dataset.imageio import Geometry

    grid = Geometry(image.shape[1:], small.SPACING_ZYX, (0.0,) * 3, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    yield predictor._normalised(predictor.preprocess("a", image, grid), "0").numpy()


def test_parts_of_a_normalised_image_are_those_of_the_whole(root):
    assert plan(FIXED) == 0
    prepared = open_prepared(root / "preprocessed", "1")
    store = NormalisedStore(
        prepared.store, measure(prepared.store, ["case_000"], prepared.plan.preprocessing)
    )
    image = store.read("case_000").image
    whole = image[...]
    assert abs(float(whole.mean())) < 1e-4 and image.shape == whole.shape
    assert np.array_equal(image[0:1], whole)
    box = (slice(1, 3), slice(0, 5), slice(2, 9))
    assert np.array_equal(image[(Ellipsis, *box)], whole[(slice(None), *box)])
    assert np.array_equal(image[(slice(0, 1), *box)], whole[(slice(None), *box)])


def test_only_training_cases_are_cloned(root, monkeypatch, capsys):
    """Not those that are validated or tested, and not those that a stage leaves out."""
    cases, cloned = [f"case_00{i}" for i in range(5)], []
    given = [{"train": cases[:3], "val": cases[3:4], "test": cases[4:]}]
    (root / "raw" / small.NAME / "splits.json").write_text(json.dumps(given))

    def draw(*arguments, case, **settings):
        cloned.append(case)
        return draw_lesions(*arguments, case=case, **settings)

    monkeypatch.setattr(clones, "draw_lesions", draw)
    assert plan() == 0
    settings = ("stages.0.sampling.clones={}", "stages.0.iterations_per_epoch=null")
    assert trained(*settings) == 0
    assert sorted(cloned) == cases[:3]
    assert "3 cases to train on with 1 clone of each, 1 to validate" in capsys.readouterr().err
    cloned.clear()
    assert trained(*settings, "stages.0.leave_out=[1,3]", "--overwrite") == 0
    assert sorted(cloned) == [cases[0], cases[2]]


def test_a_fold_with_a_test_part_is_scored_on_it(root):
    cases = [f"case_00{i}" for i in range(5)]
    given = [{"train": cases[:3], "val": cases[3:4], "test": cases[4:]}]
    (root / "raw" / small.NAME / "splits.json").write_text(json.dumps(given))
    assert plan() == 0 and trained('postprocessing=[{"name": "threshold", "fit": "validation"}]') == 0
    record = json.loads((fold(root) / "fold.json").read_text())
    assert record["test_cases"] == cases[4:] and record["validation_cases"] == cases[3:4]
    summary = json.loads((fold(root) / "validation" / "summary.json").read_text())
    assert [case["name"] for case in summary["cases"]] == cases[4:]
    learned = json.loads((fold(root) / "fitted.json").read_text())
    assert learned["steps"]["threshold"]["cases"] == cases[3:4]


def test_nothing_is_predicted_outside_the_mask(root):
    raw = root / "raw" / small.NAME
    for place, images in (("", raw / "imagesTr"), ("Ts", raw / "imagesTs")):
        for path in sorted(images.glob("*_0000.nii.gz")):
            inside = np.zeros(small.case(0)[0].shape[1:], np.uint8)
            inside[2:8, 2:22, 2:22] = 1
            target = (raw if not place else images) / "brains" / path.name.replace("_0000", "")
            small.write(target, inside)
    assert plan('preprocessing.mask={"folder": "brains"}') == 0 and trained() == 0
    out = root / "out"
    options = ["-i", str(raw / "imagesTs"), "-o", str(out), "-d", "1", "-device", "cpu"]
    everything = 'postprocessing=[{"name": "threshold", "arguments": {"above": 0.0}}]'
    assert predict.main([*options, "--set", everything]) == 0
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(next(out.glob("*.nii.gz")))))
    assert mask[2:8, 2:22, 2:22].all() and mask.sum() == 6 * 20 * 20
    shutil.rmtree(raw / "imagesTs" / "brains")
    assert predict.main([*options, "--continue_prediction"]) == 1
