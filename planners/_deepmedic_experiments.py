"""The experiments E0 to E5 of the study that the planner ``deepmedic`` follows: what each changes in its one stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from autoseg.errors import AutosegError
from autoseg.plan import Clones, ModelStart, Stage, WeightMaps
from autoseg.planners._deepmedic_settings import LAYERS, LEARNING_RATE, DeepMedicOptions

FINE_RATE = 5e-4
"""The first learning rate of E2."""


@dataclass(frozen=True)
class Experiment:
    """One of the study's experiments.

    Attributes:
        what: in words.
        clones: whether clones of the training cases train too.
        frozen: the first so many layers of each pathway.
        lr: the first learning rate.
        errors: whether patches are drawn by the errors of the model that it starts from.
        other_map: whether rCBV takes the place of rCBF.
    """

    what: str
    clones: bool = True
    frozen: int = 0
    lr: float = LEARNING_RATE
    errors: bool = False
    other_map: bool = False


EXPERIMENTS = {
    "E0": Experiment("from scratch, without clones", clones=False),
    "E1": Experiment("from scratch, with a clone of each training case"),
    "E2": Experiment(
        "fine-tuning of E1's common layers, patches where it errs", frozen=LAYERS, lr=FINE_RATE, errors=True
    ),
    "E3": Experiment("E1 goes on with another map, its pathways frozen", frozen=LAYERS, other_map=True),
    "E4": Experiment("E1 goes on with another map, half of its pathways frozen", frozen=4, other_map=True),
    "E5": Experiment("E1 goes on with another map, nothing frozen", other_map=True),
}
CLONED_FROM = "E1"
"""What E2 to E5 start from."""
OWN_OPTIONS = ("error_maps", "start_from", "other_map", "frozen_layers")
"""What is set for one experiment, and not for what it starts from."""


def starts_from(options: DeepMedicOptions) -> list[dict[str, Any]]:
    """The options of the models that an experiment can start from; none from scratch.

    With ``start_from=best`` those of all experiments before it; the last of them, E1, comes last, and is trained where
    none of them is there.
    """
    names = list(EXPERIMENTS)
    if options.experiment in names[:2]:
        return []
    others = [n for n in names[: names.index(options.experiment)] if n != CLONED_FROM]
    chosen = [*(others if options.start_from == "best" else ()), CLONED_FROM]
    usual = DeepMedicOptions()
    own = {
        name: getattr(usual, name) for name in OWN_OPTIONS if getattr(options, name) != getattr(usual, name)
    }
    return [{"experiment": name, **(own if name == CLONED_FROM else {})} for name in chosen]


def frozen_patterns(layers: list[int]) -> list[str]:
    """Names of the parameters of these layers, counted from 1, of all pathways."""
    if layers == list(range(1, LAYERS + 1)):
        return ["normal.*", "low.*"]
    return [f"{pathway}.layer{layer}.*" for pathway in ("normal", "low.*") for layer in layers]


def frozen_layers(options: DeepMedicOptions) -> list[int]:
    """The layers that do not train, counted from 1.

    Raises:
        AutosegError: a number that no layer has.
    """
    asked = options.frozen_layers
    layers = list(range(1, EXPERIMENTS[options.experiment].frozen + 1)) if asked is None else asked
    wrong = [layer for layer in layers if not 1 <= layer <= LAYERS]
    if wrong:
        raise AutosegError(
            "planner.frozen_layers names layers that do not exist",
            found=", ".join(map(str, wrong)),
            expected=f"numbers from 1 to {LAYERS}, those of a pathway",
            fix="for example --set 'planner.frozen_layers=[1,2,3,4]'",
        )
    return sorted(set(layers))


def experiment_channels(names: list[str], wanted: list[str], options: DeepMedicOptions) -> list[str]:
    """What the network sees in the experiment: E3 to E5 put another map into the place of rCBF.

    Args:
        names: of the dataset's channels.
        wanted: those of E0; empty for all.
        options: of the planner.

    Raises:
        AutosegError: there is no rCBF among them, or no other map to put there.
    """
    if not EXPERIMENTS[options.experiment].other_map:
        return wanted
    seen = wanted or names
    slot = next((i for i, name in enumerate(seen) if re.search("cbf", name.casefold())), None)
    found = options.other_map
    if found == "auto":
        found = next((name for name in names if re.search("cbv", name.casefold())), "")
    if slot is None or found not in names or found in seen:
        raise AutosegError(
            f"{options.experiment} has no map to put into the place of rCBF",
            found=f"the network sees {', '.join(seen)}; other map: {found or 'no rCBV'}",
            expected=f"rCBF among them, and one of the other channels of {', '.join(names)}",
            fix="name both: --set 'planner.channels=[ADC,MTT,rCBF]' planner.other_map=rCBV",
        )
    return [found if i == slot else name for i, name in enumerate(seen)]


def with_experiment(stage: Stage, options: DeepMedicOptions) -> Stage:
    """The stage of E0 as the experiment has it."""
    experiment, starts = EXPERIMENTS[options.experiment], starts_from(options)
    sampling = stage.sampling.model_copy(
        update={
            "clones": Clones(number=1) if experiment.clones else None,
            "weights": WeightMaps(errors_of="start") if experiment.errors and options.error_maps else None,
        }
    )
    return stage.model_copy(
        update={
            "start": ModelStart(options=starts) if starts else "scratch",
            "frozen": frozen_patterns(frozen_layers(options)),
            "sampling": sampling,
        }
    )
