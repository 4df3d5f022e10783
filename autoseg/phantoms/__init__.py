"""The embedded dataset: procedural brain-like volumes with lesions, for the demo and for tests.

Nothing in it comes from a scan. What the phantoms share with the published datasets is their grids, channels,
contrast, noise and artefacts; scores on them say that a pipeline works, never how good a method is in the clinic.

``settings`` what is imitated, ``fields`` grids and random fields, ``anatomy`` brains, ``lesion_shapes``, ``contrast``
the images of each modality, ``phantom`` one case, ``dataset`` a whole raw dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.phantoms.dataset import make_dataset
    from autoseg.phantoms.phantom import PhantomCase, make_case

__all__ = ["PhantomCase", "make_case", "make_dataset"]


def __getattr__(name: str) -> Any:
    if name in ("make_case", "PhantomCase"):
        from autoseg.phantoms import phantom

        return getattr(phantom, name)
    if name == "make_dataset":
        from autoseg.phantoms.dataset import make_dataset

        return make_dataset
    raise AttributeError(f"module 'autoseg.phantoms' has no attribute {name!r}")
