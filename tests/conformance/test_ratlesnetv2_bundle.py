"""The authors' released weights of RatLesNetv2, from file to scored mask, against the numbers of their ensemble.

Valverde et al. 2020 (Frontiers in Neuroscience 14:610239). The numbers were computed in float64 from the published
definitions: argmax of each run, strict majority of three, islands and holes under 20 voxels.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cc3d
import numpy as np
import pytest
import SimpleITK as sitk

import autoseg
from autoseg.bundle.card import ModelCard
from autoseg.bundle.foreign import read_source
from autoseg.bundle.opening import read_plan
from autoseg.cli import import_weights, predict
from autoseg.errors import AutosegError
from autoseg.files import read_model

SPACING_MM = (1.0, 0.1171875, 0.1171875)
RUNS = {"heterogeneous": (2000, 3540, 1827), "homogeneous": (3377, 2687, 4898)}
VOTES = {"heterogeneous": 2204, "homogeneous": 3380}
NETWORKS = {
    "ratlesnetv2": ("ratlesnetv2", 32, 3, "residual", 837_026),
    "width28": ("ratlesnetv2", 28, 3, "residual", 641_118),
    "lvl2": ("ratlesnetv2", 32, 2, "residual", 557_762),
    "lvl2_sameparams": ("ratlesnetv2", 39, 2, "residual", 828_011),
    "densenet": ("ratlesnetv2", 26, 3, "dense", 859_250),
    "ratlesnet": ("ratlesnet", 12, None, None, 367_334),
}


@pytest.fixture(scope="module")
def released(shared) -> Path:
    folder = shared / "weights/ratlesnet"
    if not folder.is_dir():
        pytest.skip("the released weights are not there")
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A scan made of formulas, 18 slices of 64 x 64, as the authors store theirs: file axes are h, w, slice."""
    n = (18, 64, 64)
    d, h, w = np.meshgrid(*(np.arange(k, dtype=np.float64) for k in n), indexing="ij")
    a, b, c = ((x - (k - 1) / 2) / (k / 2) for x, k in zip((d, h, w), n, strict=True))
    r = np.sqrt(a**2 / 1.2 + b**2 / 0.8 + c**2 / 0.9)
    f = (1 + 0.25 * np.sin(7 * b + 3 * a) * np.cos(5 * c)) / (1 + np.exp(12 * (r - 0.85)))
    f += 1.1 * np.exp(-((a - 0.1) ** 2 / 0.15 + (b + 0.1) ** 2 / 0.06 + (c - 0.35) ** 2 / 0.05))
    assert f.mean() == pytest.approx(0.337437078, abs=1e-9) and f.max() == pytest.approx(
        2.109000671, abs=1e-9
    )
    image = sitk.GetImageFromArray(f.transpose(0, 2, 1).astype(np.float32))
    image.SetSpacing(SPACING_MM[::-1])
    path = tmp_path_factory.mktemp("scan") / "rat_0000.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def files(released: Path, division: str) -> list[str]:
    return [str(released / f"ratlesnetv2_{division}_{run}.model") for run in (1, 2, 3)]


def mask_of(model: Path, scan: Path, output: Path) -> np.ndarray:
    """What ``autoseg_predict`` writes, ``[d, h, w]``."""
    assert predict.main(["-i", str(scan), "-o", str(output), "-m", str(model), "-device", "cpu"]) == 0
    return sitk.GetArrayFromImage(sitk.ReadImage(str(output / "rat.nii.gz"))).transpose(0, 2, 1)


@pytest.fixture(scope="module")
def votes(released, scan, tmp_path_factory) -> dict[str, np.ndarray]:
    """The post-processed vote of the three runs of each division, through the commands."""
    root, masks = tmp_path_factory.mktemp("votes"), {}
    for division in RUNS:
        model = root / f"{division}.zip"
        words = [*files(released, division), "-o", str(model), "--license", str(released / "LICENSE")]
        assert import_weights.main(words) == 0
        masks[division] = mask_of(model, scan, root / division)
    return masks


@pytest.mark.parametrize("division", RUNS)
def test_the_vote_has_the_published_voxels(votes, division):
    assert int(votes[division].sum()) == VOTES[division]
    components = cc3d.connected_components(votes[division], connectivity=26)
    assert components.max() == {"heterogeneous": 1, "homogeneous": 2}[division]


def test_the_votes_of_both_divisions_compare_as_published(votes):
    scores = autoseg.evaluate(
        votes["heterogeneous"], votes["homogeneous"], spacing_mm=SPACING_MM, preset="ratlesnetv2"
    )
    assert scores["dice"] == pytest.approx(0.6812321, abs=1e-7)
    assert scores["hausdorff_9slices_mm"] == pytest.approx(3.0401067, abs=1e-6)
    assert scores["hausdorff_mm"] == pytest.approx(3.0215696, abs=1e-6)
    assert scores["compactness_9slices_prediction"] == pytest.approx(16.7966066, abs=1e-6)


@pytest.mark.parametrize(("division", "run"), [("heterogeneous", 1), ("homogeneous", 3)])
def test_a_single_run(released, scan, tmp_path, division, run):
    model = tmp_path / "one"
    assert (
        import_weights.main([files(released, division)[run - 1], "-o", str(model), "--license", "MIT"]) == 0
    )
    removed = {("homogeneous", 3): 2}.get((division, run), 0)  # an island that post-processing takes away
    assert int(mask_of(model, scan, tmp_path / "masks").sum()) == RUNS[division][run - 1] - removed


def test_every_released_file_is_recognised(released, shared):
    hashes = {
        entry["sha256"]: (name, entry)
        for name, entry in json.loads((shared / "conformance/ratlesnet.json").read_text())["released_files"][
            "present"
        ].items()
    }
    paths = sorted(released.glob("*.model"))
    assert len(paths) >= 11
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in hashes
        source = read_source(path)
        _, entry = hashes[source.sha256]
        name, width, levels, block, parameters = NETWORKS[path.stem.rsplit("_", 2)[0]]
        spec = source.weights.network
        assert source.trainer.name == "ratlesnetv2" and spec.name == name
        assert spec.arguments["width"] == width
        assert (spec.arguments.get("levels"), spec.arguments.get("block")) == (levels, block)
        assert source.weights.facts["parameters"] == parameters == entry["parameters"]
        assert source.weights.facts.get("training_steps") == entry.get("num_batches_tracked")


def test_the_card_keeps_where_the_weights_come_from(released, tmp_path):
    model = tmp_path / "het"
    words = [*files(released, "heterogeneous"), "-o", str(model), "--license", str(released / "LICENSE")]
    assert import_weights.main(words) == 0
    card, plan = read_model(model / "model_card.json", ModelCard), read_plan(model)
    assert "Copyright (c) 2020 Juan Miguel Valverde" in card.licence and "WITHOUT WARRANTY" in card.licence
    assert [f.name for f in card.imported.files] == [Path(w).name for w in files(released, "heterogeneous")]
    assert card.imported.files[0].sha256 == hashlib.sha256(Path(words[0]).read_bytes()).hexdigest()
    assert card.imported.files[0].facts == {"parameters": 837_026, "training_steps": 700 * 40 + 1}
    assert str(released) not in (model / "model_card.json").read_text()
    assert plan.preprocessing.transpose == (0, 2, 1) and not plan.preprocessing.crop_to_nonzero
    assert plan.preprocessing.spacing_mm == (None, None, None) and plan.recipe.inference.patch_size == []
    assert plan.recipe.fusion.name == "majority" and plan.recipe.inference.mirror_axes == ()
    assert [s.name for s in plan.recipe.postprocessing] == ["remove_small_components", "fill_small_holes"]


def test_a_truncated_release_is_refused(released, tmp_path):
    content = (released / "ratlesnetv2_heterogeneous_1.model").read_bytes()
    for n_bytes in (10, 20, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:n_bytes])
        with pytest.raises(AutosegError, match="truncated") as error:
            read_source(tmp_path / "cut")
        assert f"{n_bytes} bytes" in str(error.value)
