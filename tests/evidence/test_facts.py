"""What a fingerprint says about the kind of data, worked out by hand."""

import pytest

from autoseg.evidence.facts import Evidence
from autoseg.fingerprint import CaseAppearance, ChannelAppearance


def with_contrasts(fingerprint, *cases, correlations=()):
    """The lesion contrast of each channel, case by case."""
    changed = []
    for case, values in zip(fingerprint.cases, cases, strict=True):
        looks = [ChannelAppearance(shading=None, lesion_contrast=value) for value in values]
        appearance = CaseAppearance(
            object_extent_mm=(90, 120, 100),
            object_share=0.5,
            channels=looks,
            correlations=list(correlations),
        )
        changed.append(case.model_copy(update={"appearance": appearance}))
    return Evidence(fingerprint.model_copy(update={"cases": changed}))


def evidence(make_fingerprint, spacing, shape, **changes) -> Evidence:
    return Evidence(make_fingerprint([spacing], [shape] * 2, **changes))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_sizes_do_not_depend_on_the_order_of_the_axes(make_fingerprint, axes):
    spacing, shape = (6.0, 1.5, 1.2), (20, 100, 130)
    found = evidence(make_fingerprint, [spacing[a] for a in axes], [shape[a] for a in axes])
    assert (found.extent_mm, found.slice_extent_mm) == (156, 156)
    assert (found.slice_mm, found.slice_ratio, found.anisotropy, found.n_slices) == (6, 4, 5, 20)


@pytest.mark.parametrize(
    ("edge", "rodent", "head", "doubts"),
    [(8, True, False, 1), (30, True, False, 0), (60, True, False, 0), (61, False, False, 1)]
    + [(149, False, False, 1), (150, False, True, 0), (300, False, True, 0), (301, False, False, 1)],
)
def test_a_size_is_a_rodents_a_persons_or_nobodys(make_fingerprint, edge, rodent, head, doubts):
    found = evidence(make_fingerprint, (edge / 100,) * 3, (50, 100, 100))
    assert (found.is_rodent, found.is_human_head, len(found.doubts)) == (rodent, head, doubts)


def test_slices_too_far_apart_for_people_are_doubted(make_fingerprint):
    assert evidence(make_fingerprint, (8, 1, 1), (20, 200, 200)).doubts == ()
    (doubt,) = evidence(make_fingerprint, (10, 1.17, 1.17), (18, 256, 256)).doubts
    assert "multiplied by ten" in doubt


def test_lesions_are_bright_or_dark_where_most_cases_agree(make_fingerprint):
    """Three of four cases are enough, two are not; a median below 0.3 is not clear."""
    fingerprint = make_fingerprint([(1, 1, 1)], [(200, 200, 200)] * 4, channels=("a", "b", "c", "d"))
    rows = [(1, -1, 0.2, 2), (1, -1, 0.2, 2), (1, -1, 0.2, -2), (-1, -1, 0.2, -2)]
    assert with_contrasts(fingerprint, *rows).lesions == ["bright", "dark", None, None]


def test_a_name_that_the_lesions_contradict_is_doubted(make_fingerprint):
    fingerprint = make_fingerprint([(1, 1, 1)], [(200, 200, 200)] * 2, channels=("T1", "T2", "T1c", "scan"))
    found = with_contrasts(fingerprint, (2, 2, 2, 2), (2, 2, 2, 2))
    (doubt,) = found.doubts
    assert doubt.startswith("lesions are bright in channel T1, and usually dark in T1")


def test_channels_that_all_look_alike_are_one_contrast(make_fingerprint):
    fingerprint = make_fingerprint([(1, 1, 1)], [(200, 200, 200)], channels=("T2_TE30", "T2_TE60", "T1"))
    same = with_contrasts(fingerprint, (None,) * 3, correlations=(0.95, 0.92, 0.99))
    assert same.one_contrast and "all channels look alike" in same.doubts[0]
    assert not with_contrasts(fingerprint, (None,) * 3, correlations=(0.95, 0.2, 0.99)).one_contrast


def test_maps_are_unlike_each_other_with_bright_and_dark_lesions(make_fingerprint):
    fingerprint = make_fingerprint([(6, 1, 1)], [(20, 200, 200)], channels=("a", "b", "c"))
    unlike = (0.1, -0.3, 0.5)
    assert with_contrasts(fingerprint, (2, -2, 2), correlations=unlike).looks_like_maps
    assert not with_contrasts(fingerprint, (2, 2, 2), correlations=unlike).looks_like_maps
    assert not with_contrasts(fingerprint, (2, -2, 2), correlations=(0.95, 0.1, 0.1)).looks_like_maps


def test_what_was_not_measured_is_unknown(make_fingerprint):
    found = evidence(make_fingerprint, (1, 1, 1), (200, 200, 200), channels=("T1",))
    assert (found.lesions, found.shading, found.object_mm, found.doubts) == ([None], [None], None, ())
    assert found.lesions_as_in("T1") and found.only_channel("T1") == "it"


def test_the_words_name_what_was_looked_at(make_fingerprint):
    fingerprint = make_fingerprint([(6, 1, 1)], [(20, 200, 200)] * 2, channels=("t2_flair", "x"))
    words = dict(with_contrasts(fingerprint, (2, None), (2, None)).words)
    assert words["size"] == "a human head by the field of view (200 mm; the head 120 mm)"
    assert words["channels"] == "t2_flair (FLAIR, lesions bright); x (contrast not known by its name)"
    assert words["lesions"] == "lesion; 1 in the median case, half of them 6 ml to 6 ml"
    assert words["cases"] == "2, 2 with lesions"
