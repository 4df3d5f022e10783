"""Names of channels, as people write them."""

import pytest

from autoseg.evidence.contrasts import contrast_of

SPELLINGS = {
    "T1": "T1 T1w t1_mprage MPRAGE T1-weighted T1_SPGR ax_t1_se T1_coronal t1_tra mp2rage",
    "T1c": "T1c T1Gd T1-CE T1ce T1w+c T1_post T1-Gd t1_km T1_contrast_enhanced",
    "T1rho": "T1rho",
    "T2": "T2 T2w t2_tse_tra T2-weighted T2_TurboRARE t2_space",
    "T2*": "T2* T2star t2_star_gre SWI",
    "FLAIR": "FLAIR t2_flair T2-FLAIR flair_tra_dark_fluid FLAIR_3D",
    "DWI": "DWI dwi_b1000 b=1000 Diffusion TRACEW trace-weighted ep2d_diff_3scan_trace isoDWI DWI_b800",
    "b0": "b0 DWI_b=0",
    "ADC": "ADC DWI_ADC ADC_map",
    "Tmax": "Tmax rTmax PWI_Tmax T-max",
    "TTP": "TTP perf_TTP time_to_peak",
    "MTT": "MTT MTT_map mean_transit_time",
    "rCBF": "rCBF CBF relCBF",
    "rCBV": "rCBV CBV",
    "PWI": "PWI perfusion 4DPWI",
    "PD": "PD pdw",
    "CT": "CT NCCT CT_head",
    "": "image channel0 MRI anat zscore c1 PET_tracer scan",
}


@pytest.mark.parametrize(
    ("channel", "kind"), [(name, kind) for kind, names in SPELLINGS.items() for name in names.split()]
)
def test_the_usual_spellings_are_known(channel, kind):
    assert contrast_of(channel) == kind


def test_blanks_do_not_matter():
    assert contrast_of("DWI b = 1000") == "DWI"
    assert contrast_of("DWI b=0") == "b0"
    assert contrast_of("Apparent diffusion coefficient") == "ADC"
    assert contrast_of("PET tracer") == ""
    assert contrast_of("T1 coronal") == "T1"
