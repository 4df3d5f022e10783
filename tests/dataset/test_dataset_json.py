"""What follows from the labels of dataset.json."""

import json

import numpy as np
import pytest

from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet


@pytest.mark.parametrize("values", [(1,), (3,), (2, 7, 1)])
def test_the_largest_score_wins_and_of_equal_ones_the_first(values):
    labels = LabelSet.from_labels({"background": 0, **{f"class{v}": v for v in values}})
    scores = np.random.default_rng(0).integers(-2, 3, (len(values) + 1, 4, 9, 11)).astype(np.float32)
    table = np.array([0, *values])
    mask = labels.decide(scores)
    assert mask.dtype == np.uint8 and np.array_equal(mask, table[scores.argmax(0)])
    assert set(np.unique(mask)) == {0, *values}


def test_regions_are_written_in_their_order_where_their_score_is_positive():
    labels = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    scores = np.array([[-1, 1, 1, -1, 0], [-1, -1, 1, 1, 0]], np.float32)[:, None, None]
    assert labels.decide(scores).ravel().tolist() == [0, 1, 2, 2, 0]


GOOD = {
    "channel_names": {"0": "T2"},
    "labels": {"background": 0, "a": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"labels": {"background": 0, "a": 256}}, "label values go up to 255, found 256"),
        ({"labels": {"background": 0, "a": 50_000_000}}, "label values go up to 255, found 50000000"),
        ({"labels": {"background": 0, "a": [1, 10**12]}}, "label values go up to 255, found 1000000000000"),
        ({"labels": {"background": 0, "a": 10**38}}, "found a number of 39 digits"),
        ({"labels": {"background": 0, **{f"l{i}": i for i in range(1, 10**5)}}}, "go up to 255, found 99999"),
        (
            {"labels": {"background": 0, **{f"l{i}": [1] for i in range(300)}}},
            "at most 256 labels, found 301",
        ),
        ({"labels": {"background": 0, **{f"l{i}": "x" for i in range(10**4)}}}, "20000 entries do not fit"),
        ({"labels": REGIONS, "regions_class_order": [1, 300]}, "names 300, which is the value of no label"),
        ({"labels": REGIONS, "regions_class_order": [1, -1]}, "names -1, which is the value of no label"),
        ({"labels": REGIONS, "regions_class_order": [1] * 10**4}, "with 2 values, found 10000"),
        ({"channel_names": {str(i): "T2" for i in range(5000)}}, "at most 1000 items"),
        (
            {"channel_names": {"0": "a", **{str(i): "T2" for i in range(2, 500)}}},
            r"numbered 0, 1, \.\.\., 498",
        ),
        ({"channel_names": {"\u00b2": "a"}}, "channels must be numbered 0"),
    ],
    ids=range(13),
)
def test_limits_are_said_in_words_and_in_one_page(entries, words, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(GOOD))
    assert read_dataset_json(tmp_path / "dataset.json").label_set.known_values == (0, 1)
    (tmp_path / "dataset.json").write_text(json.dumps({**GOOD, **entries}))
    with pytest.raises(AutosegError, match=words) as caught:
        read_dataset_json(tmp_path / "dataset.json")
    assert len(str(caught.value)) < 3000


def test_the_largest_label(tmp_path):
    labels = {"background": 0, **{f"l{i}": i for i in range(1, 256)}}
    (tmp_path / "dataset.json").write_text(json.dumps({**GOOD, "labels": labels}))
    found = read_dataset_json(tmp_path / "dataset.json").label_set
    assert found.n_outputs == 256 and found.decide(np.eye(256, dtype=np.float32))[255] == 255
