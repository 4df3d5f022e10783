"""Surfaces: where they lie, that nothing of a mask gets lost, and what the picture shows."""

import numpy as np
import pytest
from masks import ball, box

from autoseg.evaluation.summary import CaseScores
from autoseg.report.meshes import mesh_of_head, mesh_of_mask, simplify, smooth
from autoseg.report.picture import PREDICTION, TRUTH, Picture
from autoseg.report.planes import View
from autoseg.report.surfaces import choose_sides, draw_surfaces, tissue

SHAPE = (40, 44, 36)
ISOTROPIC = View(
    (0, 1, 2), (False, False, False), (1.0, 1.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices"
)
THICK = View((0, 1, 2), (False, False, False), (6.0, 1.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices")
UNKNOWN = View((0, 1, 2), (False, False, False), (1.0, 1.0, 1.0), ("", "", "", ""), "axial", "")


def mesh(mask, spacing_mm=(1.0, 1.0, 1.0), cell_mm=0.1):
    return mesh_of_mask(mask, spacing_mm, cell_mm)


def n_parts(found):
    """Closed surfaces of a mesh, by joining the corners of each face."""
    part = np.arange(len(found.vertices_mm))
    while True:
        joined = part.copy()
        np.minimum.at(joined, found.faces.ravel(), np.repeat(part[found.faces].min(1), 3))
        if (joined == part).all():
            return len(np.unique(part[found.faces]))
        part = joined


# ---------------------------------------------------------------------------------------------------------- meshes


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0), (2.0, 1.0, 1.0)])
def test_a_ball_keeps_its_place_size_and_outside(spacing_mm):
    centre = tuple(20 / mm for mm in spacing_mm)
    found = mesh(ball(12, centre, tuple(int(2 * c) + 1 for c in centre), spacing_mm), spacing_mm)
    out = found.vertices_mm - 20
    assert np.linalg.norm(out, axis=1) == pytest.approx(12, abs=1.0)
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.05)
    outwards = (found.normals * out).sum(1) / np.linalg.norm(out, axis=1)
    assert outwards.min() > 0.6 and outwards.mean() > 0.97


def test_one_voxel_has_a_surface_around_it():
    one = box((3, 4), (4, 5), (5, 6), shape=(8, 9, 10))
    found = mesh(one, (6.0, 1.0, 2.0), cell_mm=50.0)
    middle = (found.vertices_mm.min(0) + found.vertices_mm.max(0)) / 2
    assert middle == pytest.approx([18, 4, 10]) and (np.ptp(found.vertices_mm, axis=0) > 0).all()


def test_voxels_at_the_edge_and_full_volumes_are_closed():
    for mask in (np.ones((3, 4, 5), bool), box((0, 2), (0, 2), (0, 2), shape=(3, 4, 5))):
        edges = np.sort(mesh(mask).faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert len(mesh(np.zeros((3, 4, 5), bool)).faces) == 0


def test_no_part_of_a_mask_gets_lost():
    """A large part is simplified, specks beside it are not."""
    mask = ball(12, (15, 15, 15), (50, 40, 40))
    mask[40, 5::8, 5::8] = True  # 5 x 5 specks
    fine, coarse = mesh(mask), mesh(mask, cell_mm=4.0)
    assert n_parts(fine) == n_parts(coarse) == 26
    assert len(coarse.faces) < len(fine.faces) / 4
    assert coarse.volume_mm3 == pytest.approx(fine.volume_mm3, rel=0.06)


def test_smoothing_flattens_stairs_and_keeps_the_volume():
    found = mesh(ball(12, (15, 15, 15), (31, 31, 31)))
    smoother = smooth(found)
    radius = [np.linalg.norm(one.vertices_mm - 15, axis=1) for one in (found, smoother)]
    assert radius[1].std() < radius[0].std()
    assert smoother.volume_mm3 == pytest.approx(found.volume_mm3, rel=0.02)
    assert simplify(found, 1e-6).volume_mm3 == pytest.approx(found.volume_mm3)


def test_the_head_holds_the_masks_however_dark():
    head = ball(14, (20, 20, 16), SHAPE)
    dark = box((32, 39), (17, 23), (13, 19), shape=SHAPE)
    with_mask, without = (
        mesh_of_head(head & ~dark, (1.0, 1.0, 1.0), m) for m in (dark, np.zeros(SHAPE, bool))
    )
    assert with_mask.vertices_mm[:, 0].max() > 37 > without.vertices_mm[:, 0].max() + 2
    for blank in (np.zeros(SHAPE, bool), np.ones(SHAPE, bool)):
        assert len(mesh_of_head(blank, (1.0, 1.0, 1.0), dark).faces) == 0


def test_tissue_is_what_differs_from_the_air():
    """A dark brain that was cut out is tissue all over; in air with noise, what is bright."""
    random, head = np.random.default_rng(0), ball(14, (20, 20, 16), SHAPE)
    cut_out = np.where(head, random.normal(1, 0.2, SHAPE), 0)
    cut_out[18:22, 18:22, 14:18] = 50  # liquor outshines all else
    assert (tissue(cut_out) == head).all()
    noisy = np.abs(random.normal(0, 1, SHAPE)) + 100.0 * head
    assert (tissue(noisy) == head).mean() > 0.99


# ----------------------------------------------------------------------------------------------------------- views


def test_lesions_are_seen_from_their_side():
    left, right = box((30, 35), (5, 9), (5, 9), shape=SHAPE), box((2, 5), (5, 9), (5, 9), shape=SHAPE)
    for mask, words, letters, sign in ((left, "left", ("A", "P"), 1), (right, "right", ("P", "A"), -1)):
        beside, above = choose_sides(mask, known=True)
        assert (beside.words, beside.letters) == (f"from the {words}", letters)
        assert beside.axes[2, 0] * sign > 0.8
        # back of the head: at the right of the picture from the left, and the other way round
        assert beside.axes[0] @ (0, 1, 0) * sign > 0.8 and beside.axes[1, 2] > 0.8
        assert above.axes[0] == pytest.approx([1, 0, 0]) and above.letters == ("R", "L")
        for side in (beside, above):
            assert side.axes @ side.axes.T == pytest.approx(np.eye(3), abs=1e-12)
            assert np.linalg.det(side.axes) == pytest.approx(1)
    unknown = choose_sides(left, known=False)
    assert [(side.words, side.letters) for side in unknown] == [
        ("first view", ("", "")),
        ("second view", ("", "")),
    ]


# --------------------------------------------------------------------------------------------------------- pictures


def picture(truth, prediction, view=ISOTROPIC, image=None):
    if image is None:
        image = 100.0 * ball(14, [n / 2 for n in SHAPE], SHAPE)
    scores = {"dice": 0.5, "volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    case = CaseScores(
        name="x$_1", prediction_sha256="", truth_sha256="", classes=dict.fromkeys(truth, scores)
    )
    return Picture(case, image, truth, prediction, view, "T1")


def pixels_of(figure):
    figure.set_dpi(40)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def amount(pixels, colour):
    """Pixels whose hue is about that of a colour, whatever the light."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    bright = pixels[pixels.max(-1) > 60].astype(float)
    alike = (bright @ wanted) / np.linalg.norm(bright, axis=1) / np.linalg.norm(wanted)
    return int(np.count_nonzero(alike > 0.985))


def test_truth_and_prediction_stand_beside_each_other_in_their_colours():
    truth, prediction = ({"lesion": ball(r, (20, 22, 18), SHAPE)} for r in (8, 5))
    figure = draw_surfaces(picture(truth, prediction), "worst case: x$_1")
    panels = np.array_split(pixels_of(figure), 4, axis=1)
    seen = [(amount(panel, TRUTH), amount(panel, PREDICTION)) for panel in panels]
    for i, j in ((0, 1), (2, 3)):
        assert seen[i][0] > 300 and seen[j][1] > 100
        assert seen[i][0] == pytest.approx(seen[j][1] * 64 / 25, rel=0.35)  # discs of radius 8 and 5
    texts = [text.get_text() for text in (*figure.texts, *(t for a in figure.axes for t in a.texts))]
    assert {"worst case: x$_1", "truth", "prediction", "from the left", "from the front and above"} <= set(
        texts
    )
    assert any(text.endswith(("cm", "mm")) for text in texts)


@pytest.mark.parametrize("view", [ISOTROPIC, THICK, UNKNOWN], ids=["isotropic", "thick", "unknown"])
def test_empty_and_tiny_masks(view):
    nothing, one = np.zeros(SHAPE, bool), box((20, 21), (20, 21), (20, 21), shape=SHAPE)
    figure = draw_surfaces(picture({"lesion": one}, {"lesion": nothing}, view), "x")
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("prediction, empty") == 2 and "truth, empty" not in texts
    assert amount(pixels_of(figure), TRUTH) > 2
    pixels_of(draw_surfaces(picture({"lesion": nothing}, {"lesion": nothing}, view), "x"))
    dark = np.zeros(SHAPE)
    assert draw_surfaces(picture({"lesion": nothing}, {"lesion": nothing}, view, dark), "x") is None
    assert (
        amount(
            pixels_of(draw_surfaces(picture({"lesion": one}, {"lesion": nothing}, view, dark), "x")), TRUTH
        )
        > 50
    )


def test_a_class_within_another_is_seen():
    whole, core = ball(9, (20, 22, 18), SHAPE), ball(4, (20, 22, 18), SHAPE)
    masks = {"core": core, "whole": whole}  # the order of the classes does not matter
    figure = draw_surfaces(picture(masks, masks), "x")
    pixels = pixels_of(figure)
    assert (
        amount(pixels, TRUTH) > 200 and amount(pixels, PREDICTION) > 600
    )  # the first two colours of classes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["core", "whole"]
