"""The samplers by name: checked without data, bound to the cases of a stage to give its places."""

from __future__ import annotations

from typing import Any

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Outside, Sampler, SamplerPart, TrainingCases
from autoseg.plugins.registry import Registry, refuse_misfits
from autoseg.plugins.trainer import Trainer
from autoseg.sampling.counted_voxels import CountedVoxels
from autoseg.sampling.foreground_share import ForegroundShare
from autoseg.sampling.lesion_pixels import LesionPixels, check_lesion_pixels
from autoseg.sampling.sub_volumes import SubVolumes, check_sub_volumes

REGISTRY = Registry(
    "sampler",
    "samplers",
    (
        SamplerPart(
            "foreground_share",
            ForegroundShare,
            redraws=True,
            summary="a share of each batch around the foreground, the rest anywhere (nnU-Net)",
        ),
        SamplerPart(
            "lesion_pixels",
            LesionPixels,
            redraws=True,
            needs_lesions=True,
            outside="minimum",
            check=check_lesion_pixels,
            foretold=lambda facts, **_: facts.lesion_voxels,
            summary="every pixel of every lesion once in a pass, anywhere in its patch (EDD Net)",
        ),
        SamplerPart(
            "counted_voxels",
            CountedVoxels,
            summary="around any voxel that counts, each case in turn (DeepMedic's uniform sampling)",
        ),
        SamplerPart(
            "sub_volumes",
            SubVolumes,
            outside="minimum",
            check=check_sub_volumes,
            foretold=lambda facts, epoch="one_per_scan", **_: (
                facts.cases * (facts.parts if epoch == "all_subvolumes" else 1)
            ),
            summary="equal parts of the depth, in the planes around the lesion (Brain SegNet)",
        ),
    ),
)


def check(sampling: plan.Sampling, trainer: Trainer | None = None) -> SamplerPart:
    """The row that a stage's plan names, whose arguments fit.

    Raises:
        AutosegError: an unknown sampler, or arguments that it does not have.
    """
    part, arguments = REGISTRY.get(sampling.name, trainer), own_arguments(sampling)
    outside_of(sampling, part)
    what = f"the sampler '{part.name}' (every sampler also takes outside: zero or minimum)"
    refuse_misfits(what, part.build, None, **arguments)
    part.check(**arguments)
    if sampling.nonzero_share and not part.redraws:
        able = [name for name, row in REGISTRY.rows().items() if row.redraws]
        raise AutosegError(
            f"the sampler '{part.name}' draws no patch again",
            found=f"sampling.nonzero_share {sampling.nonzero_share:g}",
            expected=f"0, or one of the samplers {', '.join(able)}",
            fix="set sampling.nonzero_share to 0, or name another sampler",
        )
    if sampling.weights is not None and not part.weighs:
        able = [name for name, row in REGISTRY.rows().items() if row.weighs]
        raise AutosegError(
            f"the sampler '{part.name}' draws no patch by the weights of voxels",
            found="sampling.weights",
            expected=f"no weights, or one of the samplers {', '.join(able)}",
            fix="set sampling.weights to null, or name another sampler",
        )
    return part


def build(cases: TrainingCases, trainer: Trainer | None = None) -> Sampler:
    """The sampler that the stage's plan names, bound to the stage's cases.

    Raises:
        AutosegError: see :func:`check`; or there is nothing that it could show.
    """
    sampling = cases.stage.sampling
    return check(sampling, trainer).build(cases, **own_arguments(sampling))


def own_arguments(sampling: plan.Sampling) -> dict[str, Any]:
    """What the sampler itself is given: all but ``outside``."""
    return {name: value for name, value in sampling.arguments.items() if name != "outside"}


def outside_of(sampling: plan.Sampling, part: SamplerPart) -> Outside:
    """What lies beyond an image.

    Raises:
        AutosegError: a value that this setting does not have.
    """
    value = sampling.arguments.get("outside", part.outside)
    if value == "zero" or value == "minimum":
        return value
    raise AutosegError(
        "there is no such value beyond the image",
        where="sampling.arguments.outside",
        found=repr(value),
        expected="zero, or minimum (the least value of the volume)",
        fix="correct the arguments in the plan",
    )
