"""study.json: what was asked for, what was decided, and the tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from autoseg.files import ExactModel, read_version, write_json
from autoseg.names import Name

FILE_NAME, RECORDS, VERSION = "study.json", "tasks", 1
Phase = Literal["prepare", "measure", "trial 1", "trial 2", "folds", "out of fold", "final"]


class Needs(ExactModel):
    """What a task needs of a machine.

    Attributes:
        gpu: whether a device does its work; else it takes one's place for a while.
        memory_gb: of the main memory, as far as it is known.
        seconds: expected; 0 where nothing was measured.
    """

    gpu: bool = False
    memory_gb: float = 4.0
    seconds: float = 0.0


class Task(ExactModel):
    """One command of the study.

    Attributes:
        id: unique, and a name of files.
        phase: see :mod:`autoseg.study`.
        family: whose it is; empty for those of all together.
        command: as it is typed, word for word; ``{device}`` and ``{processes}`` are filled in when it is started.
        inputs: files of other tasks that it reads; it waits for the tasks that leave them.
        outputs: files that it leaves.
        needs: of a machine.
    """

    id: Name
    phase: Phase
    family: str = ""
    command: list[str] = Field(min_length=1)
    inputs: list[str] = []
    outputs: list[str] = Field(min_length=1)
    needs: Needs = Needs()


class Settings(ExactModel):
    """What the user asked for.

    Attributes:
        hours: of wall time for the whole study; None trains the published lengths.
        families: ``auto``, ``all`` or names.
        winners: how many families at most go on from the trial.
        options: ``--set`` for every plan, such as ``planner.length=quick``.
    """

    hours: float | None = None
    families: list[str] = ["auto"]
    winners: int = 2
    options: list[str] = []


class Folders(ExactModel):
    """The three roots, absolute."""

    raw: str
    preprocessed: str
    results: str


class Candidate(ExactModel):
    """A family that takes part, and why.

    Attributes:
        family: its name, which is that of its planner.
        plan: name of its plan.
        score: of its planner, 0 to 1, as in the ranked table of ``auto``; None before the planners were asked.
        why: what the planner said.
    """

    family: Name
    plan: Name
    score: float | None = None
    why: str


class StageTime(ExactModel):
    """A stage as it was published, with its measured step.

    Attributes:
        name: of the stage.
        epochs, iterations: as the plan has them; iterations of an epoch.
        seconds: of an iteration, measured.
    """

    name: str
    epochs: int
    iterations: int
    seconds: float


class Measure(ExactModel):
    """What was measured of a family on the device at hand.

    Attributes:
        stages: of the plan.
        members: of the plan.
        start: seconds of a training's command beside its iterations and its predictions.
        predict: seconds to predict the scored cases of a fold, by one member.
    """

    stages: list[StageTime]
    members: int
    start: float
    predict: float

    @property
    def published(self) -> float:
        """Seconds of one fold as published, with its prediction."""
        steps = sum(stage.epochs * stage.iterations * stage.seconds for stage in self.stages)
        return self.members * (steps + self.predict) + self.start


class Length(ExactModel):
    """How long a family trains in a task.

    Attributes:
        settings: changes to its plan, path to value.
        seconds: of training, expected.
        shortened: what differs from the published recipe, in words; empty where nothing does.
    """

    settings: dict[str, Any]
    seconds: float
    shortened: list[str]


class Standing(ExactModel):
    """A family after a round of the trial.

    Attributes:
        dice, lesion_f1: means over the compared cases and the classes; None where it failed.
        seconds: of training that it had, measured.
        cost: seconds of one fold as published, on this device.
        goes_on: whether it does.
        why: in words; of a family that failed, the error.
    """

    family: Name
    dice: float | None = None
    lesion_f1: float | None = None
    seconds: float | None = None
    cost: float | None = None
    goes_on: bool
    why: str


class Round(ExactModel):
    """One round of the trial.

    Attributes:
        number: from 1.
        fold: on which fold.
        seconds: of training that each family was given.
        lengths: family to what that makes of its recipe.
        cases: on which they were compared.
        said: the differences, a sentence each.
        standings: of every family of the round, best mean first; empty while it is not decided.
    """

    number: int
    fold: int
    seconds: float
    lengths: dict[str, Length]
    cases: int = 0
    said: list[str] = []
    standings: list[Standing] = []


class Contender(ExactModel):
    """What was compared out of fold: a family, or an ensemble of several.

    Attributes:
        name: in tables and names of folders.
        families: one or more.
        fusion: of an ensemble; empty for one family.
        dice, lesion_f1: out of fold, with the post-processing that nested cross-validation chose for each fold.
        planned: Dice of the same cases with the plan's own post-processing.
        seconds: of the training of all folds of its families.
        steps: the post-processing that it carries, in words.
        why: what speaks for it or against it; of one that failed, the error.
    """

    name: Name
    families: list[str]
    fusion: str = ""
    dice: float | None = None
    lesion_f1: float | None = None
    planned: float | None = None
    seconds: float | None = None
    steps: str = ""
    why: str = ""


class Choice(ExactModel):
    """What became of the study.

    Attributes:
        method: name of the chosen one.
        methods: all, best mean first.
        said: the differences, a sentence each.
    """

    method: str
    methods: list[Contender]
    said: list[str] = []


class Study(ExactModel):
    """study.json.

    Attributes:
        dataset: full name.
        command: as it was typed first.
        devices: how many work side by side, which all times stand for.
        fingerprint_hash: of the data that it is about.
        folds: how many; 0 before they are known.
        candidates: who takes part.
        measures: family to what was measured.
        rounds: of the trial.
        winners: who went on.
        lengths: how long they train a fold.
        choice: the end.
        tasks: of all phases that have begun, each after those that it waits for.
    """

    version: Literal[1] = 1  # VERSION
    autoseg_version: str
    dataset: Name
    command: str = ""
    folders: Folders
    settings: Settings
    devices: int = 1
    fingerprint_hash: str = ""
    folds: int = 0
    candidates: list[Candidate] = []
    measures: dict[str, Measure] = {}
    rounds: list[Round] = []
    winners: list[str] = []
    lengths: dict[str, Length] = {}
    choice: Choice | None = None
    tasks: list[Task] = []

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return Path(self.folders.results) / self.dataset / "study"

    def plan_of(self, family: str) -> str:
        """Name of a family's plan."""
        return next(one.plan for one in self.candidates if one.family == family)

    def write(self) -> None:
        """Into its folder."""
        write_json(self.folder / FILE_NAME, self)


def read_study(folder: Path) -> Study:
    """The study of a folder.

    Raises:
        AutosegError: there is none, or it is damaged or of another version.
    """
    made_by = "autoseg_run"
    return read_version(folder / FILE_NAME, Study, VERSION, what="the study is", made_by=made_by)
