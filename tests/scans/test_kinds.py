"""What kind of sequence names and descriptions mean: hand-made lists of what scanners, studies and models write."""

import pytest

from autoseg.scans.kinds import LOCALISER, kind_of_name, kind_of_text, says

NAMES = {
    "t1": ["T1", "T1w", "t1n", "MPRAGE"],
    "t1c": ["T1c", "T1ce", "T1Gd", "T1-Gd"],
    "t2": ["T2", "T2w"],
    "flair": ["FLAIR", "t2f", "T2-FLAIR"],
    "t2star": ["T2*", "T2starw"],
    "dwi": ["DWI", "dwi", "trace"],
    "adc": ["ADC"],
    "rcbf": ["rCBF"],
}
TEXTS = {
    "t1": ["AX T1 SE", "t1_mprage_sag_p2_iso", "Ax T1 FLAIR", "SAG 3D FSPGR", "T1W_3D_TFE"],
    "t1c": ["AX T1 +C", "t1_mprage_tra_KM", "T1 POST GAD", "Ax T1 SE post", "T1W GD"],
    "t2": ["AX T2 TSE", "t2_tse_tra_512", "T2W_TSE", "Ax T2 FRFSE"],
    "flair": ["AX T2 FLAIR fs", "t2_tirm_tra_dark-fluid", "FLAIR_longTR", "3D FLAIR"],
    "t2star": ["t2*_fl2d_tra", "T2star"],
    "dwi": ["ep2d_diff_3scan_trace", "DWI b1000", "AX DTI 25 dir"],
    "adc": ["ep2d_diff_3scan_trace_ADC", "Apparent Diffusion Coefficient (mm2/s)"],
    "swi": ["SWI_Images", "AX SWAN"],
    None: ["brain", "AX", "routine head", "unnamed"],
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for kind, names in NAMES.items() for name in names])
def test_names_of_channels_and_suffixes(name, kind):
    assert kind_of_name(name) == kind


@pytest.mark.parametrize(("text", "kind"), [(text, kind) for kind, texts in TEXTS.items() for text in texts])
def test_descriptions_of_series(text, kind):
    assert kind_of_text(text) == kind


def test_a_contrast_agent_in_the_header_makes_t1_another_kind():
    assert kind_of_text("AX T1 SE", contrast=True) == "t1c" and kind_of_text("AX T2", contrast=True) == "t2"


@pytest.mark.parametrize(
    "text", ["localizer", "3-plane loc", "Survey", "Scout", "AAHead Scout", "3 Plane Loc"]
)
def test_localisers(text):
    assert LOCALISER.search(text)


@pytest.mark.parametrize("text", ["AX T1", "Local shim T1", "Allocated T1", "velocity map", "post surgery"])
def test_no_localisers(text):
    assert not LOCALISER.search(text)


def test_a_word_of_no_list_is_found_as_a_whole():
    assert says("perfusion rCBF map", "rcbf") and not says("rCBFmap", "rcbf") and not says("T1", "t1")
