"""Corrections are proposed where they were measured to be needed, and every family can take them."""

import pytest

from autoseg import plugins
from autoseg.cli.common import parse_overrides
from autoseg.evidence.corrections import corrections
from autoseg.evidence.facts import Evidence
from autoseg.fingerprint import CaseAppearance, ChannelAppearance
from autoseg.plan import apply_overrides
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.training.check_recipe import check_recipe

RAT = {"spacings": [(1, 0.12, 0.12)], "shapes": [(18, 128, 128)] * 4, "channels": ("T2",)}
FAMILIES = ["brainsegnet", "deepmedic", "edd_muscle", "ratlesnetv2", "resunet", "unet"]


def with_looks(fingerprint, *shading, share=0.8, lesion=1.0):
    looks = CaseAppearance(
        object_extent_mm=(10, 15, 15),
        object_share=share,
        channels=[ChannelAppearance(shading=value, lesion_contrast=lesion) for value in shading],
    )
    cases = [case.model_copy(update={"appearance": looks}) for case in fingerprint.cases]
    return fingerprint.model_copy(update={"cases": cases})


def names(fingerprint) -> list[str]:
    return [one.name for one in corrections(Evidence(fingerprint))]


@pytest.mark.parametrize(("shading", "expected"), [(1.3, []), (1.59, []), (1.6, ["N4"]), (None, [])])
def test_n4_is_proposed_where_brightness_changes_across_the_head(make_fingerprint, shading, expected):
    assert names(with_looks(make_fingerprint(**RAT), shading)) == expected


def test_no_coil_shades_a_map(make_fingerprint):
    fingerprint = make_fingerprint(**{**RAT, "channels": ("ADC", "T2")})
    (found,) = corrections(Evidence(with_looks(fingerprint, 2.0, 2.0)))
    assert found.words == ("preprocessing.normalisation.1.bias_correction=n4",) and "T2 2.0-fold" in found.why


def test_air_is_proposed_to_be_cut_off_unless_it_is_0(make_fingerprint):
    assert names(with_looks(make_fingerprint(**RAT), 1.0, share=0.1)) == [
        "crop to the head",
        "z-score of the head",
    ]
    cut_out = with_looks(make_fingerprint(**RAT, relative_size=0.2), 1.0, share=0.1)
    assert names(cut_out) == []


def test_nothing_is_proposed_where_nothing_was_measured(make_fingerprint):
    assert names(make_fingerprint(**RAT)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_every_correction(make_fingerprint, family):
    fingerprint = with_looks(make_fingerprint(**RAT), 2.0, share=0.1)
    words = [word for one in corrections(Evidence(fingerprint)) for word in one.words]
    assert len(words) == 3
    plan = apply_overrides(make_plan(fingerprint, family, Budget()), parse_overrides(words))
    (entry,) = plan.preprocessing.normalisation
    assert (entry.bias_correction, entry.scheme) == (
        "n4",
        "zscore_object",
    ) and plan.preprocessing.crop_to_object
    check_recipe(plan, plugins.load(plugins.TRAINERS, plan.trainer))
