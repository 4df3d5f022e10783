"""The sweeps themselves: what has no hand-worked case is named."""

import pytest
import sweep


def test_what_has_no_case_fails_and_says_where_to_add_it():
    assert sweep.hand_worked({"known": 7}, "known", "CASES of test_x.py") == 7
    with pytest.raises(pytest.fail.Exception, match="'new' is registered.* add one to CASES of test_x.py"):
        sweep.hand_worked({"known": 7}, "new", "CASES of test_x.py")


def test_a_case_of_nothing_fails():
    sweep.refuse_leftovers({"known": 7}, ["known", "other"], "CASES")
    with pytest.raises(AssertionError, match="cases of gone"):
        sweep.refuse_leftovers({"known": 7, "gone": 8}, ["known"], "CASES")
