"""Many cases: while the network works on one, the next is read and the one before is written.

One thread reads and preprocesses, one restores and writes, the caller's runs the network. Each hands over one
case at a time, so memory does not grow with the number of cases, and what goes wrong in a thread is raised in
the caller's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import messages
from autoseg.dataset.imageio import Geometry, HeaderForms, read_forms, write_mask
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError, CaseError, Fault, FaultsError
from autoseg.files import atomic_path, check_writable, exclusive, hash_file, remove_leftovers
from autoseg.inference import prediction_record as records
from autoseg.inference.prediction_record import PredictedCase, PredictionRecord
from autoseg.inference.predictor import Predictor
from autoseg.messages import count_of
from autoseg.orientation import Turn
from autoseg.plugins.parts import Fusion
from autoseg.preprocessing.case import Preprocessed
from autoseg.version import __version__

PROBABILITIES_ENDING = ".npz"
SHOWN = 10


@dataclass(frozen=True)
class ExtraFile:
    """One more file of each case, made from its probabilities before they are let go.

    Attributes:
        ending: the file is ``CASE`` and this.
        write: ``write(path, case, probabilities)`` writes it atomically; probabilities are float32 ``[k, z, y, x]``
            on the original grid. It is called in the writing thread.
    """

    ending: str
    write: Callable[[Path, Case, np.ndarray], None]


@dataclass
class FolderReport:
    """Names of the cases that were predicted, kept as they were, and could not be predicted."""

    predicted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def predict_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    *,
    continue_prediction: bool = False,
    save_probabilities: bool = False,
    overwrite: bool = False,
    extra: ExtraFile | None = None,
) -> FolderReport:
    """Predict cases into a folder: ``CASE.nii.gz`` (the model's file ending) and prediction.json.

    Args:
        predictor: the model.
        cases: see :func:`autoseg.dataset.raw_layout.list_images`.
        output: the folder; it is made.
        continue_prediction: keep cases whose files are whole, from the same image, model and options.
        save_probabilities: also ``CASE.npz`` with ``probabilities``, float16 ``[k, z, y, x]``.
        overwrite: replace masks that something else made: a person, another model or other options.
        extra: one more file of each case, on record like its mask.

    Raises:
        AutosegError: the folder cannot be written to, belongs to something else or is being predicted into.
        FaultsError: some cases could not be predicted; all others are done.
    """
    output = Path(output)
    _refuse_foreign_files(output, cases, predictor.model.info.file_ending, overwrite)
    check_writable(output)
    with exclusive(output / ".lock", doing="predicting into this folder"):
        remove_leftovers(output, owned=True)
        before = _earlier_record(output, overwrite)
        record = PredictionRecord(
            autoseg_version=__version__,
            identity={**predictor.identity, "dataset": predictor.plan.dataset},
            cases=before.cases if before else {},
        )
        if not overwrite:
            _refuse_other_results(output, record, cases)
        records.write_record(output, record)
        run = _FolderRun(predictor, output, record, save_probabilities, extra)
        return run.predict(cases, continue_prediction)


def _earlier_record(output: Path, overwrite: bool) -> PredictionRecord | None:
    """What is known of the folder; a damaged record is begun anew where the user wants all replaced."""
    try:
        return records.read_record(output)
    except AutosegError as error:
        if not overwrite:
            raise
        messages.warn(f"{output / records.FILE_NAME} is begun anew: it {error.fault.problem}")
        return None


def _refuse_foreign_files(output: Path, cases: Sequence[Case], ending: str, overwrite: bool) -> None:
    """Masks that no prediction made, such as a reader's, are never replaced unasked."""
    if any(path.parent.resolve() == output.resolve() for case in cases for path in case.images):
        raise AutosegError(
            "the output folder holds the images", where=str(output), fix="choose another folder with -o"
        )
    if overwrite or (output / records.FILE_NAME).exists():
        return
    there = [case.name + ending for case in cases if (output / (case.name + ending)).exists()]
    if there:
        raise AutosegError(
            "the output folder holds masks that were not predicted by autoseg",
            where=str(output),
            found=f"{count_of(len(there), 'file')}, such as {there[0]}",
            expected="an empty folder, or one with prediction.json",
            fix="choose another folder with -o, or replace them with --overwrite",
        )


def _refuse_other_results(output: Path, record: PredictionRecord, cases: Sequence[Case]) -> None:
    """What another model, other options or a hand made is replaced only when the user asks."""
    faults = []
    for case in cases:
        why = records.why_of_another(output, record, case.name)
        if why:
            fix = "choose another folder with -o, or replace it with --overwrite"
            faults.append(Fault(case.name, f"its mask {why}", fix=fix))
    if faults:
        title = f"{output}: {len(faults)} of {len(cases)} masks that are there would be replaced"
        raise FaultsError(title, faults[:SHOWN] + _and_more(faults))


def _and_more(faults: Sequence[Fault]) -> list[Fault]:
    return [Fault(count_of(len(faults) - SHOWN, "more case"), "the same")] if len(faults) > SHOWN else []


@dataclass
class _Loaded:
    """A case on its way to the network, in the plan's orientation; ``turn`` came from the ``stored`` geometry to it."""

    case: Case
    started: float
    input_sha256: str
    preprocessed: Preprocessed
    stored: Geometry
    turn: Turn
    forms: HeaderForms
    raw: np.ndarray | None = None


@dataclass
class _Failed:
    """A case that could not be read, or that the network has no answer for."""

    case: Case
    error: AutosegError


@dataclass
class _FolderRun:
    """One run over a folder."""

    predictor: Predictor
    output: Path
    record: PredictionRecord
    save_probabilities: bool
    extra: ExtraFile | None = None
    report: FolderReport = field(default_factory=FolderReport)
    faults: list[Fault] = field(default_factory=list)
    n_cases: int = 0

    def predict(self, cases: Sequence[Case], continue_prediction: bool) -> FolderReport:
        todo = self._todo(cases, continue_prediction)
        self.n_cases = len(todo)
        estimate = _Estimate(self.predictor, len(todo))
        with estimate, ThreadPoolExecutor(1, "autoseg-read") as reader, _Behind() as behind:
            waiting = [reader.submit(self._load, case) for case in todo[:1]]
            for following in [*todo[1:], None]:
                if not waiting:
                    break
                loaded = waiting.pop().result()
                if following is not None:
                    waiting.append(reader.submit(self._load, following))
                if isinstance(loaded, _Failed):
                    behind.submit(self._note_failure, loaded)
                else:
                    self._predict_one(loaded, estimate, behind)
                estimate.next_case()
        messages.tell_notes()
        if self.faults:
            done = len(self.report.predicted) + len(self.report.kept)
            raise FaultsError(
                f"{count_of(len(self.faults), 'case')} could not be predicted, {count_of(done, 'is', 'are')} done",
                self.faults,
            )
        return self.report

    def _todo(self, cases: Sequence[Case], continue_prediction: bool) -> list[Case]:
        """The cases to predict; those that are kept are reported."""
        if not continue_prediction:
            return list(cases)
        todo = []
        for case in cases:
            why = self._why_not_current(case)
            if why is None:
                self.report.kept.append(case.name)
                continue
            todo.append(case)
            if why:
                messages.info(f"{case.name}: predicted again, because {why}")
        if self.report.kept:
            messages.info(
                f"{len(self.report.kept)} of {count_of(len(cases), 'case')} done already, {len(todo)} left"
            )
        return todo

    def _why_not_current(self, case: Case) -> str | None:
        """See :mod:`autoseg.inference.prediction_record`; a case that cannot be read is not current."""
        try:
            mask = self.predictor.mask_path(case)
        except AutosegError:
            return ""
        return records.why_not_current(self.output, self.record, case, self._file_names(case), mask)

    def _file_names(self, case: Case) -> list[str]:
        """Of all files of a case, the mask first."""
        endings = [self.predictor.model.info.file_ending]
        endings += [PROBABILITIES_ENDING] if self.save_probabilities else []
        endings += [self.extra.ending] if self.extra else []
        return [case.name + ending for ending in endings]

    def _load(self, case: Case) -> _Loaded | _Failed:
        """Read and preprocess; runs in the reading thread. Faults of the input do not stop the others."""
        started = time.perf_counter()
        try:
            raw, forms = self.predictor.read(case), read_forms(case.images[0])
            digest = records.input_hash(case, raw.mask_path)
            with _explained_memory(case.name):
                preprocessed = self.predictor.preprocess(case.name, raw.image, raw.geometry, raw.mask)
        except (AutosegError, OSError) as error:
            fault = error if isinstance(error, AutosegError) else AutosegError(f"cannot be read: {error}")
            return _Failed(case, fault)
        image = raw.image if self.predictor.needs("image") else None
        return _Loaded(case, started, digest, preprocessed, raw.stored, raw.turn, forms, image)

    def _predict_one(self, loaded: _Loaded, estimate: _Estimate, behind: _Behind) -> None:
        """The network's part; restoring and writing follow behind."""
        fused = self.predictor.fusion(loaded.preprocessed)
        estimate.start_case()
        try:
            for logits in self.predictor.logits(loaded.preprocessed, estimate.case_progress):
                behind.submit(fused.add, logits)
        except CaseError as error:
            behind.submit(self._note_failure, _Failed(loaded.case, error))
        else:
            behind.submit(self._finish, loaded, fused)

    def _finish(self, loaded: _Loaded, fused: Fusion) -> None:
        """Restore, post-process and write one case, its record last; runs in the writing thread."""
        with _explained_memory(loaded.case.name):
            self._restore_and_write(loaded, fused)

    def _restore_and_write(self, loaded: _Loaded, fused: Fusion) -> None:
        case, back = loaded.case, loaded.turn.back
        result = self.predictor.finish(
            fused,
            loaded.turn.geometry(loaded.stored).spacing_mm,
            image=loaded.raw,
            probabilities=self.save_probabilities or self.extra is not None,
            inside=loaded.preprocessed.inside,
        )
        names, mask = self._file_names(case), back.array(result.mask)
        write_mask(self.output / names[0], mask, loaded.stored, loaded.forms)
        scores = result.probabilities
        probabilities = np.asarray(back.array(scores) if scores is not None else None)
        if self.save_probabilities:
            with atomic_path(self.output / names[1]) as temporary:
                np.savez_compressed(temporary, probabilities=probabilities.astype(np.float16))
        if self.extra is not None:
            self.extra.write(self.output / names[-1], case, probabilities)
        earlier = self.record.cases.get(case.name)
        if earlier and earlier.input_sha256 and earlier.input_sha256 != loaded.input_sha256:
            messages.warn(f"{case.name}: replaced the prediction of another image of the same name")
        seconds = time.perf_counter() - loaded.started
        self.record.cases[case.name] = PredictedCase(
            status="done",
            made_by=self.record.made_by,
            input_sha256=loaded.input_sha256,
            files={name: hash_file(self.output / name) for name in names},
            seconds=round(seconds, 3),
        )
        records.write_record(self.output, self.record)
        self.report.predicted.append(case.name)
        volume_ml = float((mask > 0).sum()) * loaded.stored.voxel_ml
        done = f" ({len(self.report.predicted)} of {self.n_cases})" if self.n_cases > 1 else ""
        planned = self.predictor.plan.preprocessing.orientation
        turned = f"; stored as {loaded.stored.orientation}, turned into {planned} and back" * back.changes
        messages.info(f"{case.name}{done}: {volume_ml:.3g} ml segmented, {seconds:.1f} s{turned}")

    def _note_failure(self, loaded: _Failed) -> None:
        """Put a case that could not be predicted on record."""
        name, error = loaded.case.name, loaded.error
        inner = error.faults if isinstance(error, FaultsError) else (error.fault,)
        self.faults += [Fault(name, _joined(f), f.found, f.expected, f.fix) for f in inner]
        self.record.cases[name] = PredictedCase(
            status="failed", made_by=self.record.made_by, input_sha256="", problem=str(error)
        )
        records.write_record(self.output, self.record)
        self.report.failed.append(name)
        messages.warn(f"{name} could not be predicted: {error.fault.problem}")


@contextlib.contextmanager
def _explained_memory(name: str) -> Iterator[None]:
    """Main memory that runs out is reported with the case."""
    try:
        yield
    except MemoryError as error:
        raise AutosegError(
            "the main memory is not enough for this case",
            where=name,
            found=str(error) or "MemoryError",
            fix="close other programs, or crop the image to the brain",
        ) from error


def _joined(fault: Fault) -> str:
    return f"{Path(fault.where).name}: {fault.problem}" if fault.where else fault.problem


class _Behind:
    """One thread that works behind the caller, at most one task behind.

    ``submit`` first waits for the task before and raises what went wrong in it; leaving the block does the same.
    """

    def __enter__(self) -> _Behind:
        self._pool = ThreadPoolExecutor(1, "autoseg-write")
        self._last: Future[Any] | None = None
        return self

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run ``function`` after all that was submitted before it."""
        self._wait()
        self._last = self._pool.submit(function, *arguments)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown()


class _Estimate:
    """Says how long it will take, once the first tiles are done, and where it stands."""

    def __init__(self, predictor: Predictor, n_cases: int) -> None:
        self._predictor = predictor
        self._n_cases = n_cases
        self._done = 0
        self._said = False
        self._started = 0.0
        self._first: tuple[float, float] | None = None
        self._begun, self._ticker = time.perf_counter(), messages.Ticker()

    def __enter__(self) -> _Estimate:
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.close()

    def start_case(self) -> None:
        """The network begins with a case."""
        self._started, self._first = time.perf_counter(), None

    def case_progress(self, share: float) -> None:
        """A batch of tiles is done; ``share`` of the case, 0 to 1."""
        now = time.perf_counter()
        if not self._said and (self._first is not None or share == 1):
            self._said = True
            # the first tiles also set up the network; the second ones tell how long the rest takes
            start, done = self._first or (self._started, 0.0)
            self._say((now - start) / (share - done))
        self._first = (now, share)
        self._advance(self._done + share)

    def next_case(self) -> None:
        """A case is done."""
        self._done += 1
        self._advance(self._done)

    def _advance(self, done: float) -> None:
        if not 0 < done < self._n_cases:
            return
        seconds = (time.perf_counter() - self._begun) / done * (self._n_cases - done)
        self._ticker.tell(
            f"predicting case {int(done) + 1} of {self._n_cases}, {done / self._n_cases:.0%} done; "
            f"{messages.duration(seconds)} left"
        )

    def _say(self, seconds: float) -> None:
        """The estimate from the time that the first tiles took."""
        device = self._predictor.device
        text = f"about {messages.duration(seconds)} for a case of this size on {device}"
        if self._n_cases > 1:
            text += f", {messages.duration(seconds * self._n_cases)} for {self._n_cases} such cases"
        n = self._predictor.n_mirrored
        if device.type == "cpu" and n > 1:
            on = self._predictor.options.mirror
            text += (
                f" (mirroring is on; without it {n} times faster)"
                if on
                else (f" (mirroring is off; --enable_tta would take {n} times as long)")
            )
        messages.info(text)
