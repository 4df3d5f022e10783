"""postprocessing.json of a model: the steps that were found best out of fold, used in place of the plan's.

The plan stays as it was trained by; whoever opens the model predicts with these steps, unless ``--set postprocessing``
says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from autoseg.files import ExactModel, read_model
from autoseg.plan import PostStep
from autoseg.plan.identity import without_defaults

FILE_NAME = "postprocessing.json"
FIND = "autoseg_find_postprocessing"


class FoundSteps(ExactModel):
    """postprocessing.json.

    Attributes:
        steps: on the mask, in order; None where the plan's own were best.
        words: the same in words.
        metric: that decided, its mean over cases and classes.
        cases: on which they were chosen, out of fold.
        parts: into how many parts the cases were divided, each of which was scored with steps chosen on the others.
        nested: metric to its mean with these: what to expect of new cases.
        tuned: with the steps above on the cases that chose them, which is too good.
        planned: with the plan's own steps.
        chosen: the steps of each part, in words.
    """

    version: Literal[1] = 1
    steps: list[PostStep] | None
    words: str
    metric: str
    cases: int
    parts: int
    nested: dict[str, float]
    tuned: dict[str, float]
    planned: dict[str, float]
    chosen: list[str]


def read_found_steps(folder: Path) -> dict[str, Any]:
    """What a model carries, as overrides of its plan; empty where it carries nothing.

    Raises:
        AutosegError: the file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    steps = read_model(path, FoundSteps, made_by=f"{FIND} -m {folder}").steps
    return {} if steps is None else {"postprocessing": [without_defaults(step) for step in steps]}
