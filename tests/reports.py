"""Small scored folders for tests of reports, and a reader of the pages."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import small

from autoseg.comparison.comparison_schema import Comparison, LevelComparison, Method, StratumComparison
from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.evaluation.score_masks import evaluate_folder
from autoseg.evaluation.summary import MetricRow, PresetRow

SHAPE = (8, 20, 20)
EVIL_CASE = "a<b>&\"c'"
EVIL_CLASS = "<script>alert(1)</script>"


def masks(index: int, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Truth and a prediction that is off by ``index % 4`` columns; every fifth truth is empty."""
    truth = np.zeros(SHAPE, np.uint8)
    if index % 5 != 4:
        size = 2 + index % 6
        truth[2:6, 4 : 4 + size, 5 : 5 + size] = 1
        if labels > 1:
            truth[3:5, 4 : 4 + size, 5 : 5 + size // 2] = 2
    return truth, np.roll(truth, index % 4, axis=2)


def write_raw(root: Path, names, label_names=("lesion",), channel="T2") -> Path:
    """A raw dataset with images and true masks."""
    raw, random = root / "raw" / "Dataset901_Synthetic", np.random.default_rng(0)
    for i, name in enumerate(names):
        truth, _ = masks(i, len(label_names))
        image = random.normal(100, 10, SHAPE).astype(np.float32) + 60 * (truth > 0)
        small.write(raw / "imagesTr" / f"{name}_0000.nii.gz", image)
        small.write(raw / "labelsTr" / f"{name}.nii.gz", truth)
    info = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{name: i + 1 for i, name in enumerate(label_names)}},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(info))
    return raw


def write_scores(folder: Path, raw: Path, indices, labels: int = 1, probabilities: bool = False, **options):
    """Predictions of the cases with these indices in ``raw``, and their scores."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    for i in indices:
        _, prediction = masks(i, labels)
        small.write(folder / f"{names[i]}.nii.gz", prediction)
        if probabilities:
            p = np.clip(0.8 * prediction + 0.1, 0, 1).astype(np.float16)
            np.savez_compressed(folder / f"{names[i]}.npz", probabilities=np.stack([1 - p, p]))
    info = read_dataset_json(raw / "dataset.json")
    summary = evaluate_folder(folder, raw / "labelsTr", info, cases=[names[i] for i in indices], **options)
    summary.write(folder)
    return summary


TRUTH_ML = [12.0, 20.0, 35.0, 5.0]
"""With :data:`PREDICTION_ML`: difference -1.0, SD 2.581989, limits -6.060698 and 4.060698 (DeepMedic study, card)."""
PREDICTION_ML = [10.0, 22.0, 31.0, 5.0]


def compared(**changes) -> Comparison:
    """Two methods on four cases of two subtypes, by the preset ``deepmedic``, with numbers that a hand can check."""
    row = {"definition": "", "empty_prediction": None, "empty_truth": None, "both_empty": None}
    dice, hausdorff = (
        MetricRow(unit=unit, group=group, better=better, **row)
        for unit, group, better in (("1", "overlap", "higher"), ("mm", "distance", "lower"))
    )
    levels = [
        LevelComparison(name=name, cases=cases, metrics={})
        for name, cases in (("lacunar", ["a", "b", "c"]), ("cortical", ["d"]))
    ]
    scores = {
        "dice": {"Base": [0.2, 0.4, 0.6, 0.9], "FH": [0.3, 0.4, 0.8, 0.7]},
        "hausdorff_mm": {"Base": [3.0, None, 5.0, 4.0], "FH": [2.0, 2.0, 2.0, 2.0]},
    }
    rest = {"autoseg_version": "", "labels_from": "", "interval": "", "correction": "", "tests": {}}
    made = Comparison(
        truths="labelsTr",
        preset=PresetRow(name="deepmedic", title="", table=["dice"], in_words=["dice"]),
        labels={"lesion": 1},
        methods=[Method(name="Base", folder="base"), Method(name="FH", folder="fh")],
        cases=list("abcd"),
        main=["dice"],
        test="permutation",
        alpha=0.05,
        metrics={"dice": dice, "hausdorff_mm": hausdorff},
        classes={"lesion": {}},
        strata=[StratumComparison(name="subtype", rule="column subtype", classes={"lesion": levels})],
        scores={"lesion": scores},
        truth_volumes_ml={"lesion": TRUTH_ML},
        volumes_ml={"lesion": {"Base": PREDICTION_ML, "FH": TRUTH_ML}},
        **rest,
    )
    return made.model_copy(update=changes)


class Read(HTMLParser):
    """A page as a reader sees it: elements with attributes, and the rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._cell = None
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        self._hidden += tag in ("style", "script")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")
        if tag in ("td", "th"):
            self.rows[-1].append(self._cell.strip())
            self._cell = None

    def handle_data(self, data):
        if not self._hidden:
            self.text += data
        if self._cell is not None:
            self._cell += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def sections(self):
        return [attributes["id"] for attributes in self.all("section") if "id" in attributes]
