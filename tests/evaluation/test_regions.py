"""Regions of a preset on the labels of datasets that have them, have them in another order, or have not."""

import pytest

from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.evaluation.presets import find_preset
from autoseg.evaluation.regions import meaning, scored_regions

BRATS = find_preset("brats")


def info(labels, order=None):
    return DatasetJson(
        channel_names={"0": "FLAIR"},
        labels={"background": 0, **labels},
        numTraining=1,
        file_ending=".nii.gz",
        regions_class_order=order,
    )


def named(*names):
    return info({name: i + 1 for i, name in enumerate(names)})


@pytest.mark.parametrize(
    "names",
    [
        ("necrosis", "edema", "non_enhancing", "enhancing"),
        ("NCR", "ED", "NET", "ET"),
        ("necrotic core", "peritumoral oedema", "non-enhancing tumour", "enhancing tumour"),
        ("label 1", "label 2", "label 3", "label 4"),
    ],
)
def test_labels_of_the_preset(names):
    assert scored_regions(None, BRATS, named(*names)) == BRATS.regions
    assert scored_regions(None, BRATS, None) == BRATS.regions
    assert scored_regions(None, find_preset("isles22"), named(*names)) is None


def test_names_and_what_they_mean():
    """The labels of BRATS 2013 to 2016: non-enhancing is not enhancing; short words are whole names."""
    words = BRATS.label_words
    said = {
        "Non-Enhancing": 3,
        "enhancing": 4,
        "ET": 4,
        "net": 3,
        "NCR": 1,
        "ed": 2,
        "lesion": None,
        "red": None,
    }
    assert {name: meaning(name, words) for name in said} == said


def test_labels_in_another_order_are_refused_with_the_regions_to_type():
    with pytest.raises(AutosegError) as error:
        scored_regions(None, BRATS, named("edema", "necrosis", "enhancing", "non_enhancing"))
    text = str(error.value)
    assert "edema, necrosis, enhancing, non_enhancing: the labels of dataset.json are not those of" in text
    assert "1 edema, 2 necrosis, 3 enhancing, 4 non_enhancing" in text
    assert "1 necrosis, 2 oedema, 3 nonenhancing, 4 enhancing" in text
    assert "--regions whole=1,2,3,4 core=2,3,4 enhancing=3" in text


def test_three_labels_of_later_challenges():
    """BRATS 2017 to 2020 merge necrosis and non-enhancing tumour; their 4 became 3 in nnU-Net's form."""
    with pytest.raises(AutosegError, match="--regions whole=1,2,3 core=1,3 enhancing=3") as error:
        scored_regions(None, BRATS, named("NCR/NET (necrotic)", "oedema", "enhancing"))
    assert "label values that it does not have: 4" in str(error.value)


def test_labels_without_meaning_are_offered_as_they_are():
    with pytest.raises(AutosegError, match="--regions whole=1,2$"):
        scored_regions(None, BRATS, named("lesion", "core"))


def test_regions_that_dataset_json_declares():
    labels = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert scored_regions(None, BRATS, info(labels, [1, 2, 3])) == {
        "whole": (1, 2, 3),
        "core": (2, 3),
        "enhancing": (3,),
    }
    with pytest.raises(
        AutosegError, match="enhancing: dataset.json has other regions than the preset brats"
    ) as error:
        scored_regions(None, BRATS, info({"whole": [1, 2], "core": [2]}, [1, 2]))
    assert "--regions whole=1,2 core=2" in str(error.value)


def test_regions_of_the_user_come_first():
    other = named("edema", "necrosis", "enhancing", "non_enhancing")
    assert scored_regions({"core": (2, 3)}, BRATS, other) == {"core": (2, 3)}
    with pytest.raises(AutosegError, match="label values that it does not have: 5"):
        scored_regions({"core": (2, 5)}, BRATS, other)
