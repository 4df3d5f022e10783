"""Lists of folds as others publish them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg import messages
from autoseg.dataset.fold_lists import read_fold_list
from autoseg.dataset.folds import Fold
from autoseg.errors import AutosegError

# Named as the converter atlas names the scans of release 2.0; the second subject has two sessions.
A, B1, B2, C = "sub-r001s001_ses-1", "sub-r001s002_ses-1", "sub-r001s002_ses-2", "sub-r002s001_ses-1"
CASES = [A, B1, B2, C]
SUBJECTS = {case: case.partition("_")[0] for case in CASES}
ONE = [Fold((A,), (B1, B2), (C,))]
END = "_space-MNI152NLin2009aSym_T1w.nii.gz"


def read(tmp_path: Path, content: object, names=CASES, subjects=SUBJECTS, ending: str = ".csv") -> list[Fold]:
    path = tmp_path / f"list{ending}"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_fold_list(path, names, subjects)


@pytest.mark.parametrize(
    "text",
    [
        f"case,part\n{A},train\n{B1},val\n{B2},val\n{C},test\n",
        f"scan;split\n{A};Train\n{B1};validation\n{B2};valid\n{C};TEST\n",
        "Subject ID\tSet\nsub-r001s001\ttraining\nsub-r001s002\tdev\nsub-r002s001\ttesting\n",
        f"filename,split\n{A}{END},train\n{B1}{END},val\nR001\\{B2}.nii.gz,val\nx/R002/{C}_0000.nii.gz,test\n",
        f"case,part,fold\n{A},train,0\n{B1},val,0\n{B2},val,0\n{C},test,0\n",
        "Subject ID,Session,split\nsub-r001s001,ses-1,train\nsub-r001s002,ses-1,val\n"
        "sub-r001s002,ses-2,val\nsub-r002s001,,test\n",
        "participant_id,split\nr001s001,train\nr001s002,val\nr002s001,test\n",
    ],
)
def test_one_fold_however_its_cases_are_spelled(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ONE


@pytest.mark.parametrize("spelled", [str, lambda case: case.partition("_")[0], lambda case: f"T/{case}{END}"])
def test_nnunets_form(tmp_path: Path, spelled) -> None:
    """Of a subject that is named once all cases are taken."""
    parts = ([A], [B1, B2], [C])
    parts = [list(dict.fromkeys(map(spelled, part))) for part in parts]
    content = [dict(zip(("train", "val", "test"), parts, strict=True)), {"train": parts[0], "val": parts[1]}]
    assert read(tmp_path, content, ending=".json") == [*ONE, Fold((A,), (B1, B2))]


def test_the_number_of_the_fold_that_holds_a_case_out(tmp_path: Path) -> None:
    """Counted from 1, as some do, and said; the order of lines does not matter."""
    messages.forget_warnings()
    text = "subject,fold\nsub-r002s001,3\nsub-r001s001,1\nsub-r001s002,2\n"
    assert read(tmp_path, text) == [
        Fold((B1, B2, C), (A,)),
        Fold((A, C), (B1, B2)),
        Fold((A, B1, B2), (C,)),
    ]
    said = "list.csv: the folds 1, 2, 3 of the list are folds 0, 1, 2 here, in this order"
    assert list(messages.warning_counts()) == [said]


def test_several_folds_with_parts_and_test_cases_of_all(tmp_path: Path) -> None:
    rows = f"{A},train,0\n{B1},val,0\n{B2},val,0\n{A},val,1\n{B1},train,1\n{B2},train,1\n{C},test,\n"
    folds = read(tmp_path, f"case,part,fold\n{rows}")
    assert folds == [Fold((A,), (B1, B2), (C,)), Fold((B1, B2), (A,), (C,))]


def test_a_case_is_taken_before_a_subject_and_a_file_is_not_taken_for_another_session(tmp_path: Path) -> None:
    names, subjects = ["s1", "s1_late"], {"s1": "s1", "s1_late": "s1"}
    with pytest.raises(AutosegError, match="subject s1 is torn apart"):
        read(tmp_path, "case,part\ns1,train\ns1_late,val\n", names, subjects)
    assert read(tmp_path, "case,part\ns1,train\ns1_late,val\n", names, {}) == [Fold(("s1",), ("s1_late",))]
    text = f"image,part\n{A}{END},train\nsub-r001s002_ses-3{END},val\n"
    with pytest.raises(AutosegError, match=rf"sub-r001s002_ses-3{END} +is no case of the dataset"):
        read(tmp_path, text)


GOOD = f"{A},train\n{B1},val\n{B2},val\n{C},test\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"case,part\n{GOOD}sub-r009s009,train\n",
            r"1 name means no case.*\n(.|\n)*sub-r009s009 +is no case of",
        ),
        (f"case,part\n{GOOD}{A},train\n", rf"list.csv, line 6 +a name given twice +{A} +once, as in line 2"),
        (f"case,part\n{GOOD}{A},val\n", rf"line 6 +a name given twice +{A}"),
        (f"case,part\n{GOOD}sub-r001s001,train\n", rf"fold 0 +train names a case twice +{A}"),
        (f"case,part\n{GOOD}sub-r001s001,test\n", rf"fold 0 +cases train and test +{A}"),
        (f"case,part\n{A},train\n{B1},train\n{B2},val\n{C},test\n", "subject sub-r001s002 is torn apart"),
        (f"case,part\n{A},train\n{C},val\n", rf"2 cases of the dataset are in no fold(.|\n)*{B1}, {B2}"),
        (f"case,part\n{A},train\n{B1},train\n{B2},train\n{C},test\n", r"fold 0 +val names no cases"),
        (f"case,part\n{A},train\n{B1},tune\n", r"list.csv, line 3 +is no part +tune +train, val or test"),
        (f"case,part\n{A},train\n{B1},\n", r"line 3 +is no part +nothing"),
        (f"case,part,fold\n{A},train,first\n", r"line 2 +is no number of a fold +first"),
        (f"case,fold\n{A},0\n{B1},\n", r"line 3 +is no number of a fold +nothing"),
        (f"case,fold\n{A},0\n{B1},1\n{A},1\n", rf"line 4 +a name given twice +{A}"),
        ("subject,fold\nsub-r001s001,0\n", r"all cases are held out by one fold(.|\n)*only fold 0"),
        (f"case,group\n{A},x\n", r"does not say what a case does(.|\n)*the columns case, group"),
        (f"which,part\n{A},train\n", "does not say what a case does"),
        ("case,part\n", "there is a header but no case"),
        ("", "the file is empty"),
        ("PK\3\4 spreadsheet", "is not a text table(.|\n)*save it as CSV"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(AutosegError, match=message) as caught:
        read(tmp_path, content)
    assert "list.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": [A], "val": [C]}, "is not a list of folds"),
        ([{"train": [A], "validate": [C]}], r"fold 0 +has other parts +train, validate"),
        ([{"train": [A], "val": "C"}], r"fold 0 +val names no cases"),
        ([{"train": [A, "sub-x"], "val": [C]}], r"sub-x +is no case of the dataset"),
        ([{"train": [A, A], "val": [C]}], r"fold 0 +train names a case twice"),
        ([{"train": [A, B1], "val": [C, B2]}], r"fold 0 +subject sub-r001s002 is torn apart"),
        ([{"train": [A], "val": [C]}], r"2 cases of the dataset are in no fold"),
        ('[{"train": [', "JSON"),
    ],
)
def test_nnunets_form_that_does_not_fit_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(AutosegError, match=message) as caught:
        read(tmp_path, content, ending=".json")
    assert "list.json" in str(caught.value)
