"""Post-processing chosen out of fold: by hand, with a case that the others choose wrongly for."""

import numpy as np
import pytest
import small

from autoseg.bundle.found_steps import FILE_NAME, FoundSteps, read_found_steps
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.files import write_json
from autoseg.plan import PostStep
from autoseg.study.fuse import fuse
from autoseg.study.out_of_fold import OutOfFold, OutOfFoldCase
from autoseg.study.steps_search import DECIDED, Chain, Search, found_steps, parts_of

SHAPE = (4, 20, 20)
INFO = DatasetJson.model_validate(
    {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
)
LESION, ISLAND = np.s_[1:3, 4:14, 4:14], np.s_[0, 0:2, 0:4]  # 200 and 8 voxels


def case(folder, name, part, lesion, island=0.0):
    """A lesion of this probability, and an island of another beside it, of which the truth knows nothing."""
    probability, truth = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    probability[ISLAND], probability[LESION], truth[LESION] = island, lesion, 1
    decided = (probability > 0.5).astype(np.uint8)
    mask, true, npz = (folder / f"{name}{ending}" for ending in (".nii.gz", ".true.nii.gz", ".npz"))
    small.write(mask, decided, spacing=(1, 1, 1))
    small.write(true, truth, spacing=(1, 1, 1))
    np.savez_compressed(npz, probabilities=np.stack([1 - probability, probability]).astype(np.float16))
    return OutOfFoldCase(name, part, true, (mask,), (npz,))


def searched(cases):
    search = Search(OutOfFold(tuple(cases), INFO, "mean_probabilities"))
    chain, of_parts, parts = search.run()
    return search, chain, of_parts, parts, found_steps(search, chain, of_parts, parts, [])


def test_threshold_and_smallest_lesion_are_found_and_told_by_nested_cross_validation(tmp_path):
    """Three folds; the lesion of the last is fainter than the islands of the others can be told from it."""
    cases = [
        case(tmp_path, "a", 0, lesion=0.35, island=0.45),
        case(tmp_path, "b", 1, lesion=0.35, island=0.45),
        case(tmp_path, "c", 2, lesion=0.15, island=0.45),
    ]
    _, chain, of_parts, _, found = searched(cases)
    # above 0.1 all three lesions are found, each with its island of 8 voxels, which 10 removes
    assert chain.words == "threshold 0.1, remove small components (10)"
    assert found.tuned == {"dice": 1.0, "lesion_f1": 1.0}
    # a and b alone are as good by 0.1, the first that is tried
    assert of_parts[2].words == chain.words
    assert found.nested == {"dice": 1.0, "lesion_f1": 1.0}
    assert found.planned["dice"] == 0.0
    assert found.steps == [
        PostStep(name="threshold", arguments={"above": 0.1}),
        PostStep(name="remove_small_components", arguments={"fewer_than_voxels": 10, "voxel_mm3": 1.0}),
    ]


def test_the_nested_figure_is_not_that_of_the_cases_that_chose(tmp_path):
    """The others have large false regions of 0.15, so they choose a higher threshold, by which c is missed."""
    cases = [case(tmp_path, name, part, lesion=0.35) for part, name in enumerate("ab")]
    for one in cases:
        probabilities = np.load(one.probabilities[0])["probabilities"]
        probabilities[1, 0, 10:, :] = 0.15  # 200 voxels
        np.savez_compressed(one.probabilities[0], probabilities=probabilities)
    cases.append(case(tmp_path, "c", 2, lesion=0.15))
    _, chain, of_parts, _, found = searched(cases)
    assert of_parts[2].words == "threshold 0.2"  # chosen by a and b: 1 and 1, and 0 for c
    # all three: above 0.1 they have 2/3, 2/3 and 1, above 0.2 they have 1, 1 and 0
    assert chain.words == "threshold 0.1"
    assert found.tuned["dice"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # a is scored by what b and c chose: 0.1, with 2/3 and 1 instead of 1 and 0
    assert found.nested["dice"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_the_plan_stays_where_nothing_is_better(tmp_path):
    _, chain, _, _, found = searched([case(tmp_path, name, i, lesion=0.9) for i, name in enumerate("ab")])
    assert chain == Chain() and found.steps is None
    assert found.words == "the plan's own"


def test_every_chain_as_a_plan_has_it():
    own, closing = (
        PostStep(name="keep_largest_component"),
        PostStep(name="closing", arguments={"iterations": 1}),
    )
    assert Chain().plan_steps([own]) is None
    assert Chain().then(closing).plan_steps([own]) == [own, closing]
    assert Chain(DECIDED).plan_steps([own]) == []
    assert [step.name for step in Chain(0.3).then(closing).plan_steps([own])] == ["threshold", "closing"]


def test_one_fold_is_divided_into_parts(tmp_path):
    cases = [OutOfFoldCase(f"{i}", 0, tmp_path, (), ()) for i in range(7)]
    assert list(parts_of(cases).values()) == [0, 1, 2, 3, 4, 0, 1]


# ------------------------------------------------------------------------------------------------------- the fusion


def test_probabilities_are_averaged_and_masks_vote():
    labels = INFO.label_set
    lesion = [np.array([0.9, 0.6, 0.1]), np.array([0.3, 0.6, 0.2]), np.array([0.2, 0.4, 0.9])]
    maps = [np.stack([1 - p, p]).reshape(2, 1, 1, 3).astype(np.float32) for p in lesion]
    mean, decided = fuse(maps, labels, "mean_probabilities")
    assert mean[1].ravel() == pytest.approx([1.4 / 3, 1.6 / 3, 1.2 / 3], abs=1e-6)
    assert decided.ravel().tolist() == [0, 1, 0]
    shares, voted = fuse(maps, labels, "majority")
    assert shares[1].ravel() == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    assert voted.ravel().tolist() == [0, 1, 0]


def test_regions_are_decided_one_by_one():
    regions = DatasetJson.model_validate(
        {
            "channel_names": {"0": "MR"},
            "labels": {"background": 0, "whole": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
    ).label_set
    values = [[[0.9, 0.6], [0.8, 0.2]], [[0.7, 0.3], [0.4, 0.1]]]
    maps = [np.array(one, np.float32).reshape(2, 1, 1, 2) for one in values]
    mean, decided = fuse(maps, regions, "mean_probabilities")
    assert mean[:, 0, 0].tolist() == [pytest.approx([0.8, 0.45]), pytest.approx([0.6, 0.15])]
    assert decided.ravel().tolist() == [2, 0]
    assert fuse(maps[:1], regions, "majority")[1].ravel().tolist() == [2, 1]


def test_an_unknown_fusion_is_refused():
    with pytest.raises(AutosegError, match="no fusion 'sum'"):
        fuse([], INFO.label_set, "sum")


# ----------------------------------------------------------------------------------------------------- in the bundle


def test_what_was_found_goes_in_place_of_the_plans_steps(tmp_path):
    assert read_found_steps(tmp_path) == {}
    content = {
        "words": "w",
        "metric": "dice",
        "cases": 1,
        "parts": 1,
        "nested": {},
        "tuned": {},
        "planned": {},
    }
    write_json(tmp_path / FILE_NAME, FoundSteps(steps=None, chosen=[], **content))
    assert read_found_steps(tmp_path) == {}
    step = PostStep(name="threshold", arguments={"above": 0.3})
    write_json(tmp_path / FILE_NAME, FoundSteps(steps=[step], chosen=[], **content))
    assert read_found_steps(tmp_path) == {
        "postprocessing": [{"name": "threshold", "arguments": {"above": 0.3}}]
    }
    write_json(tmp_path / FILE_NAME, FoundSteps(steps=[], chosen=[], **content))
    assert read_found_steps(tmp_path) == {"postprocessing": []}
