"""dataset.json, typed: nnU-Net's format, so that an nnU-Net user starts without converting anything."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import read_json, validate
from autoseg.fingerprint import MOST_CHANNELS
from autoseg.labels import LabelSet, refuse_bad_labels, refuse_bad_order

FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")

ENTRIES = {
    "channel_names": ('{"0": "FLAIR", "1": "T1"}', "name every channel, counting from 0"),
    "labels": ('{"background": 0, "lesion": 1}', "give every label a whole number, 0, 1, 2 and so on"),
    "numTraining": ("the number of training cases, at least 1", "count the cases in imagesTr"),
    "file_ending": (" or ".join(FILE_ENDINGS), "give the ending of all image and mask files"),
    "regions_class_order": ("a list of label values, such as [2, 1]", "name what each region writes"),
}
"""For each entry of dataset.json: what is expected, and what to do when it is something else."""


class DatasetJson(BaseModel):
    """The description of a raw dataset. Unknown keys are kept.

    Attributes:
        channel_names: channel index (as text) to name; the name chooses the normalisation.
        labels: label name to value, or to the list of values that make up a region; ``background`` is 0,
            ``ignore`` (optional) is the highest value. The largest is 255.
        numTraining: how many training cases there should be.
        file_ending: one of :data:`FILE_ENDINGS`, the same for all files.
        regions_class_order: for regions, the value that each region writes, in that order.
    """

    model_config = ConfigDict(extra="allow")

    channel_names: dict[str, str] = Field(min_length=1, max_length=MOST_CHANNELS)
    labels: dict[str, int | list[int]]
    numTraining: int = Field(ge=1)
    file_ending: str
    regions_class_order: list[int] | None = None

    @field_validator("channel_names")
    @classmethod
    def _channels_count_from_zero(cls, value: dict[str, str]) -> dict[str, str]:
        expected = [str(i) for i in range(len(value))]
        if set(value) != set(expected):
            numbers = ", ".join(expected if len(expected) < 10 else [*expected[:2], "...", expected[-1]])
            raise ValueError(f"channels must be numbered {numbers}")
        return {key: value[key] for key in expected}

    @field_validator("labels")
    @classmethod
    def _labels_are_consecutive(cls, value: dict[str, int | list[int]]) -> dict[str, int | list[int]]:
        refuse_bad_labels(value)
        return value

    @field_validator("file_ending")
    @classmethod
    def _ending_is_known(cls, value: str) -> str:
        if value not in FILE_ENDINGS:
            raise ValueError("not an ending that autoseg reads")
        return value

    @model_validator(mode="after")
    def _regions_have_an_order(self) -> DatasetJson:
        refuse_bad_order(self.labels, self.regions_class_order)
        return self

    @cached_property
    def label_set(self) -> LabelSet:
        """What the labels mean for a network: its outputs, targets and regions."""
        return LabelSet.from_labels(self.labels, self.regions_class_order)


def read_dataset_json(path: Path) -> DatasetJson:
    """Read dataset.json; all its faults are explained at once.

    Raises:
        AutosegError: it is missing, is not JSON or is of the older format.
        FaultsError: entries do not fit.
    """
    content = read_json(path)
    if isinstance(content, dict) and "modality" in content and "channel_names" not in content:
        raise AutosegError(
            "is in the format of nnU-Net v1 and the Medical Segmentation Decathlon",
            where=str(path),
            found="modality, and labels by number",
            expected=", ".join(f'"{key}": {ENTRIES[key][0]}' for key in ("channel_names", "labels")),
            fix="rename modality to channel_names, turn labels round, add file_ending and _0000 to the file names",
        )
    try:
        return validate(content, DatasetJson, where=str(path))
    except FaultsError as error:
        faults = _explained(error.faults)
        plural = "entries do" if len(faults) > 1 else "entry does"
        raise FaultsError(f"{path}: {len(faults)} {plural} not fit", faults) from None


def _explained(faults: Iterable[Fault]) -> list[Fault]:
    """One fault for each entry, with what was expected and what to do."""
    explained: dict[str, Fault] = {}
    for fault in faults:
        where, problem, found = fault.where, fault.problem, fault.found
        if where.endswith((".int", ".list[int]")):  # the two kinds that a label may be
            where, problem = where.rsplit(".", 1)[0], "neither a whole number nor a list of whole numbers"
        if problem == "Field required":
            problem, found = "missing", "no such entry"
        if where == "the whole" and "regions" in problem:
            where, found = "regions_class_order", ""
        expected, fix = ENTRIES.get(
            where.split(".")[0], ("an object with these entries: " + ", ".join(ENTRIES), "write one")
        )
        explained.setdefault(where, Fault(where, problem, found, expected, fix))
    return list(explained.values())
