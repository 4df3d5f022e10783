"""Patches that show too little of the head are drawn again.

The optional rejection of 3D-ResU-Net (Tomita et al. 2020, in the authors' code: until 70 % of the voxels are not 0),
for every sampler that draws its places through :func:`full_enough`.
"""

from __future__ import annotations

from collections.abc import Callable

from autoseg import messages
from autoseg.plugins.parts import Place, TrainingCases

TRIES = 50
"""Draws for one sample. Where one place in ten is full enough, 1 sample in 200 has none among so many."""


def full_enough(cases: TrainingCases, draw: Callable[[], Place]) -> Place:
    """The first place that ``draw`` gives of which ``sampling.nonzero_share`` is not 0.

    After :data:`TRIES` draws it is the fullest of them, and a warning says so. The draws of a sample come from its own
    stream of random numbers, so the result follows from its key alone, and the first draw is what there would be
    without this rule. A patch that is turned or scaled is counted as it lies unturned.

    Args:
        cases: of the stage.
        draw: the next place for the same sample, of the same case.
    """
    wanted = cases.stage.sampling.nonzero_share
    best = draw()
    if not wanted:
        return best
    most = cases.nonzero_share(best)
    for _ in range(TRIES - 1):
        if most >= wanted:
            return best
        place = draw()
        share = cases.nonzero_share(place)
        if share > most:
            best, most = place, share
    if most < wanted:
        _say_sparse(cases, best.case)
    return best


def _say_sparse(cases: TrainingCases, case: str) -> None:
    """Once for each case: the same words are only counted."""
    sampling, stage = cases.stage.sampling, cases.stage.name
    messages.warn(
        f"{case}: none of {TRIES} patches of stage {stage} has {sampling.nonzero_share:.0%} of its voxels above 0; the "
        f"fullest is taken. A lower --set stages.{stage}.sampling.nonzero_share needs fewer draws"
    )
