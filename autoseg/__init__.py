"""autoseg: from scans and lesion masks to a trained and evaluated segmentation model, without tuning.

Python users get :func:`predict` and :func:`evaluate` on arrays; everything else is one command per step.
Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoseg.version import DISTRIBUTION, __version__

if TYPE_CHECKING:
    from autoseg.evaluation.score_masks import evaluate_arrays as evaluate
    from autoseg.inference.predictor import predict

__all__ = ["DISTRIBUTION", "__version__", "evaluate", "predict"]


def __getattr__(name: str) -> Any:
    if name == "predict":
        from autoseg.inference.predictor import predict

        return predict
    if name == "evaluate":
        from autoseg.evaluation.score_masks import evaluate_arrays as evaluate

        return evaluate
    raise AttributeError(f"module 'autoseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
