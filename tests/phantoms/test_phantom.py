"""One phantom: published grids, determinism, contrast, lesions."""

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.phantoms import make_case
from autoseg.phantoms.fields import Grid, rician, smooth_field
from autoseg.phantoms.phantom import draw_grid
from autoseg.phantoms.settings import KINDS, SETTINGS

# x, y, z and mm as published (rat: 30 mm field of view)
PUBLISHED = {
    "rat_t2": ({(256, 256)}, {0.1171875}, {18}, {1.0}),
    "dwi": ({(128, 128), (192, 192)}, {1.8, 1.4}, set(range(19, 24)), {6.0, 6.25, 6.5}),
    "perfusion": ({(192, 192), (256, 256)}, {0.94, 1.2, 1.25}, set(range(19, 26)), {5.0, 6.0, 6.5, 7.0}),
    "t1": ({(197, 233)}, {1.0}, {189}, {1.0}),
}
CHANNELS = {
    "rat_t2": ("T2",),
    "dwi": ("DWI",),
    "perfusion": ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"),
    "t1": ("T1",),
}


def ring_of(mask: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Tissue in the slices and the neighbourhood of a lesion, without its edge."""
    from scipy.ndimage import binary_dilation

    near = np.zeros((3, 3, 3), bool)
    near[1] = True
    return binary_dilation(mask, near, 4) & ~binary_dilation(mask, near, 1) & tissue


@pytest.mark.parametrize("kind", KINDS)
def test_grids_are_the_published_ones(kind):
    matrices, pixels, slices, distances = PUBLISHED[kind]
    seen = set()
    for seed in range(60):
        (z, y, x), (sz, sy, sx) = draw_grid(SETTINGS[kind], np.random.default_rng(seed), 1.0)
        assert (x, y) in matrices and z in slices and sz in distances
        assert sx == sy and sx in pixels
        seen.add((x, y))
    assert seen == matrices
    assert SETTINGS[kind].channels == CHANNELS[kind]


def test_each_matrix_of_dwi_has_its_own_spacing():
    grids = [draw_grid(SETTINGS["dwi"], np.random.default_rng(seed), 1.0) for seed in range(40)]
    assert {(shape[2], spacing[2]) for shape, spacing in grids} == {(128, 1.8), (192, 1.4)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_depends_on_seed_kind_and_index_alone(kind):
    first, again = make_case(kind, 3, 7, 0.25), make_case(kind, 3, 7, 0.25)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert first.name == f"phantom_{kind}_003"
    for other in (make_case(kind, 4, 7, 0.25), make_case(kind, 3, 8, 0.25)):
        assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


@pytest.mark.parametrize("kind", KINDS)
def test_types_values_and_shapes(kind):
    case = make_case(kind, 0, 1, 0.25)
    assert case.image.dtype == np.float32 and case.mask.dtype == np.uint8
    assert case.image.shape == (len(CHANNELS[kind]), *case.mask.shape)
    assert np.isfinite(case.image).all() and np.array_equal(case.image, np.rint(case.image))
    assert case.image.min() >= 0
    assert set(np.unique(case.mask)) == {0, 1}


@pytest.mark.parametrize(
    ("kind", "z_too"), [("rat_t2", False), ("dwi", False), ("perfusion", False), ("t1", True)]
)
def test_scale_keeps_the_field_of_view_and_the_lesion(kind, z_too):
    small, large = make_case(kind, 0, 5, 0.25), make_case(kind, 0, 5, 0.5)
    for axis, shrinks in enumerate((z_too, True, True)):
        extents = [c.mask.shape[axis] * c.spacing_mm[axis] for c in (small, large)]
        assert extents[0] == pytest.approx(extents[1])
        ratio = large.mask.shape[axis] / small.mask.shape[axis]
        assert ratio == pytest.approx(2 if shrinks else 1, rel=0.03)
    volumes = [c.mask.sum() * np.prod(c.spacing_mm) for c in (small, large)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.25)
    centres = [np.argwhere(c.mask).mean(0) * c.spacing_mm for c in (small, large)]
    assert np.abs(centres[0] - centres[1]).max() < 2 * max(small.spacing_mm)


@pytest.mark.parametrize("kind", KINDS)
def test_every_sixth_rat_is_a_sham_and_all_patients_have_lesions(kind):
    empty = [i for i in range(12) if not make_case(kind, i, 2, 0.125).mask.any()]
    assert empty == ([5, 11] if kind == "rat_t2" else [])


def test_lesions_of_rats_are_on_the_right():
    for index in range(4):
        mask = make_case("rat_t2", index, 3, 0.25).mask
        assert mask[:, :, mask.shape[2] // 2 + 3 :].sum() > 0.9 * mask.sum()


@pytest.mark.parametrize(
    ("kind", "channel", "sign"),
    [
        ("rat_t2", 0, 1),
        ("dwi", 0, 1),
        ("t1", 0, -1),
        ("perfusion", 0, -1),  # ADC
        ("perfusion", 1, 1),  # MTT
        ("perfusion", 2, -1),  # rCBF
        ("perfusion", 3, -1),  # rCBV
        ("perfusion", 4, 1),  # Tmax
        ("perfusion", 5, 1),  # TTP
    ],
)
def test_lesions_differ_from_tissue_in_the_published_direction(kind, channel, sign):
    differences = []
    for index in range(4):
        case = make_case(kind, index, 1, 0.25 if kind == "t1" else 0.5)
        image, mask = case.image[channel], case.mask > 0
        tissue = image > 0.3 * np.median(image[mask])
        contrast = image[mask].mean() - np.median(image[ring_of(mask, tissue)])
        differences.append(sign * contrast / np.median(image[tissue]))
    assert np.median(differences) > 0.03


@pytest.mark.parametrize("kind", ["rat_t2", "dwi"])
def test_a_threshold_alone_does_not_segment(kind):
    def dice(found, mask):
        return 2 * (found & mask).sum() / (found.sum() + mask.sum())

    cases = [make_case(kind, i, 1, 0.25) for i in range(10)]
    standard = [((c.image - c.image.mean()) / c.image.std(), c.mask > 0) for c in cases if c.mask.any()]
    scores = [
        np.mean([dice(image[0] > level, mask) for image, mask in standard]) for level in np.arange(0, 8, 0.2)
    ]
    assert 0.2 < max(scores) < 0.75


@pytest.mark.parametrize("kind", ["perfusion", "t1"])
def test_brain_extracted_kinds_are_zero_outside(kind):
    case = make_case(kind, 0, 1, 0.25)
    assert (case.image[:, :, :2] == 0).all() and (case.image[:, :, :, :2] == 0).all()
    assert case.image[:, case.mask > 0].any(axis=0).all()
    assert 0.05 < (case.image[0] > 0).mean() < 0.4
    if kind == "t1":
        assert case.image.max() <= 255


@pytest.mark.parametrize("kind", ["rat_t2", "dwi"])
def test_air_holds_rician_noise(kind):
    corner = make_case(kind, 1, 1, 0.5).image[0, :, :8, :8]
    # Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.913
    assert corner.mean() / corner.std() == pytest.approx(1.913, rel=0.1)


def test_lesion_volumes_spread():
    cases = (make_case("dwi", i, 4, 0.25) for i in range(30))
    volumes_ml = [c.mask.sum() * np.prod(c.spacing_mm) / 1000 for c in cases]
    assert min(volumes_ml) < 4 and max(volumes_ml) > 25 and max(volumes_ml) < 160


def test_smooth_fields_do_not_depend_on_voxels():
    coarse, fine = Grid.centred((5, 6, 7), (4, 4, 4)), Grid.centred((15, 18, 21), (4 / 3,) * 3)
    fields = [smooth_field(np.random.default_rng(0), grid, 7.0, 40.0) for grid in (coarse, fine)]
    assert np.allclose(fields[0], fields[1][1::3, 1::3, 1::3], atol=1e-4)
    wide = smooth_field(np.random.default_rng(1), Grid.centred((60, 60, 60), (2, 2, 2)), 5.0, 70.0)
    assert wide.std() == pytest.approx(1, abs=0.1) and wide.mean() == pytest.approx(0, abs=0.1)


def test_rician_noise_of_no_signal():
    noise = rician(np.random.default_rng(0), np.zeros((20, 50, 50), np.float32), 10.0)
    assert noise.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("rat_t1", 0), ("no kind of phantom 'rat_t1'", "rat_t2, dwi, perfusion, t1", "did you mean")),
        (("dwi", 0, 0, 2.0), ("at this scale", "found:    2.0", "0.125 to 1", "--scale 0.25")),
        (("dwi", 0, 0, float("nan")), ("at this scale", "nan")),
        (("dwi", 0, -1), ("the seed is negative", "found:    -1")),
        (("dwi", -1), ("the index of a phantom is negative",)),
    ],
)
def test_refusals(arguments, parts):
    with pytest.raises(AutosegError) as caught:
        make_case(*arguments)
    for part in parts:
        assert part in str(caught.value)
