"""Published group sizes, hand-worked cuts, and groups files as people write them."""

import math

import numpy as np
import pytest

from autoseg import messages
from autoseg.errors import AutosegError, FaultsError
from autoseg.evaluation.strata import StrataRule, column_levels, levels, parse_rule, read_groups

QUARTILES = StrataRule("voxels_truth", quantiles=4)
CASES = ["p1", "p2", "p3", "p4"]


@pytest.fixture(autouse=True)
def no_warnings():
    messages.forget_warnings()


def sizes(found):
    return {name: len(indices) for name, indices in found}


def members(found):
    return {name: indices.tolist() for name, indices in found}


# ----------------------------------------------------------------------------------------------------------- rules


def test_rules():
    assert parse_rule("voxels_truth=q4") == QUARTILES
    assert parse_rule(" volume_truth_ml = 1, 10 ") == StrataRule("volume_truth_ml", thresholds=(1, 10))
    assert parse_rule("dice=q3", ["dice", "iou"]).quantiles == 3


def test_rules_in_words():
    assert QUARTILES.words == "quartiles of voxels_truth"
    assert parse_rule("dice=q7").words == "7 quantiles of dice"
    assert parse_rule("volume_truth_ml=1,10").words == "volume_truth_ml cut at 1, 10"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        ("voxels_truth", "voxels_truth"),
        ("=q4", "=q4"),
        ("dice=", "dice="),
        ("dice=q1", "1 group"),
        ("dice=q1000000000", "1000000000 groups"),
        ("dice=q101", "101 groups"),
        ("dice=quarter", "quarter"),
        ("dice=1,,2", "1,,2"),
        ("dice=2,1", "2,1, which does not ascend"),
        ("dice=1,1", "1,1, which does not ascend"),
        ("dice=nan", "nan, which"),
    ],
)
def test_bad_rules(text, found):
    with pytest.raises(
        AutosegError, match=rf"is not a rule for strata\n  found:    {found}(.|\n)*voxels_truth=q4"
    ):
        parse_rule(text)


def test_unknown_quantity():
    with pytest.raises(
        AutosegError, match="no such quantity\n  found:    voxel_truth\n.*did you mean voxels_truth"
    ):
        parse_rule("voxel_truth=q4", ["voxels_truth", "dice"])


# ---------------------------------------------------------------------------------------------------------- levels


def test_quartiles_of_the_31_test_scans():
    """Tomita et al. 2020 (3D-ResU-Net), Table 4: linear percentiles, [low, high), last closed, give 8, 7, 8, 8."""
    values = np.random.default_rng(0).permutation(31) * 100 + 7
    found = levels(values, QUARTILES)
    assert [len(indices) for _, indices in found] == [8, 7, 8, 8]
    assert [name for name, _ in found][:2] == ["7 to 707 voxels", "807 to 1407 voxels"]
    assert sorted(np.concatenate([indices for _, indices in found])) == list(range(31))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 31])
@pytest.mark.parametrize("groups", [2, 3, 4, 10])
def test_quantiles_hold_each_case_once_in_order(n, groups):
    values = np.random.default_rng(n).lognormal(size=n)
    found = levels(values, StrataRule("volume_truth_ml", quantiles=groups))
    assert sorted(np.concatenate([indices for _, indices in found])) == list(range(n))
    assert all(values[a].max() < values[b].min() for (_, a), (_, b) in zip(found, found[1:], strict=False))
    assert len({name for name, _ in found}) == len(found) == min(n, groups)
    assert all((np.diff(indices) > 0).all() for _, indices in found)


def test_ties_stay_together():
    assert sizes(levels([5, 5, 5, 5], QUARTILES)) == {"5 voxels": 4}
    assert sizes(levels([1, 1, 1, 1, 9], QUARTILES)) == {"1 to 9 voxels": 5}
    assert sizes(levels([1, 1, 2, 2, 3, 3, 4, 4], QUARTILES)) == {
        "1 voxel": 2, "2 voxels": 2, "3 voxels": 2, "4 voxels": 2,
    }  # fmt: skip


def test_thresholds():
    """Chen et al. 2017 (EDD + MUSCLE): small is below 37 voxels, 37 is large."""
    assert members(levels([36, 37, 1000], parse_rule("lesion_size_truth=37"))) == {
        "under 37 voxels": [0],
        "37 voxels and more": [1, 2],
    }
    assert members(levels([0.5, 1, 9.9, 10], parse_rule("volume_truth_ml=1,10"))) == {
        "under 1 ml": [0],
        "1 to 10 ml": [1, 2],
        "10 ml and more": [3],
    }
    assert sizes(levels([0.5, 0.6], parse_rule("volume_truth_ml=1,10"))) == {"under 1 ml": 2}


def test_cases_without_lesion_are_a_level_and_move_no_quantile():
    values = np.array([0, 10, 20, 30, 40, 0, math.nan])
    found = levels(values, QUARTILES, no_lesion=values == 0)
    assert members(found) == {
        "no lesion": [0, 5],
        "10 voxels": [1],
        "20 voxels": [2],
        "30 voxels": [3],
        "40 voxels": [4],
        "undefined": [6],
    }
    assert members(levels(values, StrataRule("x", thresholds=(20,)))) == {
        "under 20": [0, 1, 5],
        "20 and more": [2, 3, 4],
        "undefined": [6],
    }


def test_only_cases_without_lesion():
    assert members(levels([math.nan, 0], QUARTILES, no_lesion=np.ones(2, bool))) == {"no lesion": [0, 1]}
    assert levels([], QUARTILES) == []


def test_names_are_rounded_for_reading_but_tell_levels_apart():
    rule = StrataRule("volume_truth_ml", quantiles=2)
    assert [name for name, _ in levels([0.123456, 0.2, 12345.678, 3.14159], rule)] == [
        "0.123 to 0.2 ml",
        "3.14 to 12346 ml",
    ]
    assert [name for name, _ in levels([1, 1.2341, 1.2342, 2], rule)] == ["1 to 1.2341 ml", "1.2342 to 2 ml"]
    assert [name for name, _ in levels([0.2, 0.4], StrataRule("dice", quantiles=2), unit="1")] == [
        "0.2",
        "0.4",
    ]


# ------------------------------------------------------------------------------------------------------ groups file


def write(folder, text, name="groups.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


TABLE = "case,scanner,stage\np1,GE,acute\np2,Siemens,chronic\np3,GE,\np4,GE,acute\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TABLE, "utf-8"),
        (TABLE, "utf-8-sig"),
        (TABLE.replace("\n", "\r\n"), "utf-8"),
        (TABLE.replace(",", ";"), "utf-8"),
        (TABLE.replace(",", "\t"), "utf-16"),
        (TABLE.replace("\np", "\n p").replace(",", " , "), "utf-8"),
        (TABLE.replace("p1,", "p1.nii.gz,").replace("p2,", "p2.nii,"), "utf-8"),
        (TABLE.replace("case", "Case").replace("\n", ",,\n") + "\n,,,\n", "utf-8"),
        (TABLE.replace("case", "patient"), "utf-8"),
        (TABLE.replace("p3,GE,", "p3,GE,NA"), "utf-8"),
        ("scanner,case,stage\nGE,p1,acute\nSiemens,p2,chronic\nGE,p3\nGE,p4,acute", "utf-8"),
        (TABLE + "p1,GE,acute\n", "utf-8"),
    ],
)
def test_tables_as_people_write_them(tmp_path, text, encoding):
    groups = read_groups(write(tmp_path, text, encoding=encoding), CASES)
    assert groups.columns == ["scanner", "stage"]
    assert groups.of["p2"] == {"scanner": "Siemens", "stage": "chronic"}
    assert groups.missing == groups.unknown == []
    assert not messages.warning_counts()
    rule, found = column_levels(groups, "stage", CASES)
    assert rule == "column stage of groups.csv"
    assert members(found) == {"acute": [0, 3], "chronic": [1], "not given": [2]}


def test_latin_1_of_an_old_spreadsheet(tmp_path):
    groups = read_groups(write(tmp_path, "case;Gerät\np1;Köln\np2;Ulm\n", encoding="latin-1"), ["p1", "p2"])
    assert groups.of == {"p1": {"Gerät": "Köln"}, "p2": {"Gerät": "Ulm"}}


def test_names_with_dots_are_matched_whole_first(tmp_path):
    groups = read_groups(write(tmp_path, "case,g\nsub-1.2,a\nsub-1.nii.gz,b\n"), ["sub-1", "sub-1.2"])
    assert groups.of == {"sub-1.2": {"g": "a"}, "sub-1": {"g": "b"}}


def test_missing_and_unknown_cases_are_said(tmp_path, caplog):
    caplog.set_level("INFO", logger="autoseg")
    groups = read_groups(write(tmp_path, "case,g\np1,a\np9,b\np8,b\n"), CASES)
    assert groups.missing == ["p2", "p3", "p4"] and groups.unknown == ["p9", "p8"]
    assert messages.warning_counts() == {
        "not in groups.csv: p2, p3, p4 (3 of 4 scored cases; level 'not given')": 1
    }
    assert "groups.csv: not scored and passed over: p9, p8 (2)" in caplog.text
    assert members(column_levels(groups, "g", CASES)[1]) == {"a": [0], "not given": [1, 2, 3]}


def test_numbers_inside_texts_count_as_numbers(tmp_path):
    days = ["D14", "d3", "D21", "D3b", "Day", "D"]
    rows = "".join(f"p{i},{day}\n" for i, day in enumerate(days))
    cases = [f"p{i}" for i in range(len(days))]
    groups = read_groups(write(tmp_path, "case,day\n" + rows), cases)
    names = [name for name, _ in column_levels(groups, "day", cases)[1]]
    assert names == ["D", "d3", "D3b", "D14", "D21", "Day"]


def test_numeric_columns(tmp_path):
    cases = [f"p{i}" for i in range(8)]
    rows = "".join(f"p{i};{20 + 5 * i},5;{i % 3};{i % 2:02d}\n" for i in range(7))
    groups = read_groups(write(tmp_path, "case;age;grade;site\n" + rows), cases)
    rule, found = column_levels(groups, "age", cases)
    assert rule == "quartiles of the numbers in column age of groups.csv"
    assert members(found) == {
        "20.5 to 25.5": [0, 1],
        "30.5": [2],
        "35.5 to 40.5": [3, 4],
        "45.5 to 50.5": [5, 6],
        "not given": [7],
    }
    rule, found = column_levels(groups, "grade", cases)
    assert rule == "column grade of groups.csv" and [name for name, _ in found] == [
        "0",
        "1",
        "2",
        "not given",
    ]


def test_few_numbers_are_sorted_as_numbers_and_codes_are_texts(tmp_path):
    cases = [f"p{i}" for i in range(20)]
    rows = "".join(f"p{i},{[10, 9, 100][i % 3]},{i // 2:03d}\n" for i in range(20))
    groups = read_groups(write(tmp_path, "case,months,site\n" + rows), cases)
    assert [name for name, _ in column_levels(groups, "months", cases)[1]] == ["9", "10", "100"]
    rule, found = column_levels(groups, "site", cases)
    assert "quartiles" not in rule and len(found) == 10


def test_columns_that_make_no_groups_are_left_out(tmp_path):
    cases = [f"p{i}" for i in range(9)]
    rows = "".join(f"p{i},name {i},,{'abc'[i % 3]}\n" for i in range(9))
    groups = read_groups(write(tmp_path, "case,patient,notes,g\n" + rows), cases)
    assert groups.columns == ["g"]
    assert set(messages.warning_counts()) == {
        "groups.csv: column patient has 9 different texts for 9 cases and is left out: it makes no groups",
        "groups.csv: column notes is empty for all scored cases and is left out",
    }


def test_levels_that_differ_in_capitals_only(tmp_path):
    read_groups(write(tmp_path, "case,g\np1,Acute\np2,acute\n"), ["p1", "p2"])
    (warning,) = messages.warning_counts()
    assert "Acute and acute differ only in capitals" in warning


def test_no_file(tmp_path):
    with pytest.raises(AutosegError, match="groups file is missing\n  do:       check the path"):
        read_groups(tmp_path / "groups.csv", CASES)


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(AutosegError, match="cannot be read\n.*directory"):
        read_groups(tmp_path, CASES)


@pytest.mark.parametrize("text", ["", "\n\n", " \n"])
def test_empty_file(tmp_path, text):
    with pytest.raises(AutosegError, match="the file is empty\n  expected: a header such as case,scanner"):
        read_groups(write(tmp_path, text), CASES)


def test_a_spreadsheet(tmp_path):
    path = tmp_path / "groups.xlsx"
    path.write_bytes(b"PK\3\4" + bytes(50))
    with pytest.raises(
        AutosegError, match=r"not a text table\n  found:    a spreadsheet(.|\n)*save it as CSV"
    ):
        read_groups(path, CASES)


def test_header_only_and_cases_only(tmp_path):
    with pytest.raises(AutosegError, match="there is a header but no case"):
        read_groups(write(tmp_path, "case,scanner\n"), CASES)
    with pytest.raises(
        AutosegError, match="no column to split the cases by\n  found:    only the column case"
    ):
        read_groups(write(tmp_path, "case\np1\np2\n"), CASES)


def test_other_cases(tmp_path):
    with pytest.raises(AutosegError) as error:
        read_groups(write(tmp_path, "case,g\ns1,a\ns2,b\n"), CASES)
    text = str(error.value)
    assert "column case: no line is of a scored case" in text
    assert "s1, s2" in text and "names such as p1, p2, p3, p4" in text


def test_cases_in_another_column(tmp_path):
    with pytest.raises(AutosegError, match="column image holds 2 of the cases: rename it to case"):
        read_groups(write(tmp_path, "id,image,g\n1,p1.nii.gz,a\n2,p2.nii.gz,b\n"), CASES)


def test_a_case_with_two_lines_that_differ(tmp_path):
    with pytest.raises(FaultsError) as error:
        read_groups(write(tmp_path, "case,g,h\np1,a,x\np2,b,x\np1.nii.gz,c,x\n"), CASES)
    (fault,) = error.value.faults
    assert (fault.where, fault.problem) == ("p1", "g differs between two lines")
    assert fault.found == "a in line 2, c in line 4"


def test_lines_and_headers_that_do_not_fit(tmp_path):
    with pytest.raises(FaultsError, match=r"lines that do not fit the header(.|\n)*groups.csv, line 3 .* 3 "):
        read_groups(write(tmp_path, "case,g\np1,a\np2,b,c\n"), CASES)
    with pytest.raises(AutosegError, match="two columns have the same name\n  found:    g"):
        read_groups(write(tmp_path, "case,g,g\np1,a,b\n"), CASES)


def test_quoted_cells(tmp_path):
    groups = read_groups(write(tmp_path, 'case,g\np1,"a, b"\np2,"say ""x"""\n'), ["p1", "p2"])
    assert [groups.of[case]["g"] for case in ("p1", "p2")] == ["a, b", 'say "x"']
