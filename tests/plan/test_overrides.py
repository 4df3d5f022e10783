"""``--set``: what follows a value that was changed."""

import pytest

from autoseg.plan import apply_overrides


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stages.0.patch_size": [4, 4, 4]}, (4, 4, 4)),
        ({"stages.train.patch_size": [4, 4, 4], "inference.step": 0.25}, (4, 4, 4)),
        ({"stages.0.patch_size": [4, 4, 4], "inference.patch_size": [6, 6, 6]}, (6, 6, 6)),
        ({"stages.0.patch_size": [4, 4, 4], "inference.patch_size": [8, 8, 8]}, (8, 8, 8)),
        ({"recipe.inference.patch_size": [8, 8, 8], "recipe.stages.0.patch_size": [4, 4, 4]}, (8, 8, 8)),
        ({"stages.0.patch_size": [4, 4, 4], "inference": {"patch_size": [8, 8, 8]}}, (8, 8, 8)),
        ({"inference.patch_size": [4, 4, 4]}, (4, 4, 4)),
    ],
)
def test_the_tile_follows_the_patch_unless_the_user_named_it(model_folder, changes, expected):
    """Also where the size that was named is the one that stood there."""
    plan = apply_overrides(model_folder.make_plan(patch=(8, 8, 8)), changes)
    assert tuple(plan.recipe.inference.patch_size) == expected


def test_a_tile_of_its_own_stays(model_folder):
    plan = apply_overrides(model_folder.make_plan(patch=(8, 8, 8)), {"inference.patch_size": [12, 12, 12]})
    again = apply_overrides(plan, {"stages.0.patch_size": [4, 4, 4]})
    assert tuple(again.recipe.inference.patch_size) == (12, 12, 12)
