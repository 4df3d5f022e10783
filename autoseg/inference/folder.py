"""Many cases: while the network works on one, the next is read and the one before is written.

One thread reads and preprocesses, one restores and writes, the caller's runs the network. Each hands over one
case at a time, so memory does not grow with the number of cases. What goes wrong with a case, in any of them, is
noted and costs that case alone; a disk that takes no more files ends the whole.
"""

from __future__ import annotations

import errno
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg import messages
from autoseg.dataset.imageio import Geometry, HeaderForms, read_forms, write_mask
from autoseg.dataset.part import CasesPart
from autoseg.dataset.part_lock import exclusive_part
from autoseg.dataset.raw_layout import Case
from autoseg.device import accelerates
from autoseg.errors import AutosegError, Fault, FaultsError, readable_text
from autoseg.files import (
    atomic_path,
    check_writable,
    hash_file,
    refuse_other_encoding,
    remove_leftovers,
)
from autoseg.inference import prediction_record as records
from autoseg.inference.output_layout import FinishedCase, OutputLayout, plain_layout
from autoseg.inference.prediction_record import PredictedCase, PredictionRecord
from autoseg.inference.predictor import Predictor
from autoseg.messages import count_of, millilitres
from autoseg.names import is_name
from autoseg.orientation import Turn
from autoseg.plugins.parts import Fusion
from autoseg.preprocessing.case import Preprocessed
from autoseg.sampling.case_cache import NO_MEMORY
from autoseg.scans.staging import sources_of, staged
from autoseg.version import __version__

PROBABILITIES_ENDING = ".npz"
SHOWN = 10
NO_MORE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""What the system says when a folder takes no files any more, whatever case they are of."""


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
    layout: OutputLayout | None = None,
    part: CasesPart | None = None,
) -> FolderReport:
    """Predict cases into a folder: ``CASE.nii.gz`` (the model's file ending) and prediction.json.

    Args:
        predictor: the model.
        cases: see :func:`autoseg.scans.given.cases_of`; those with a fault are listed, not predicted.
        output: the folder; it is made.
        continue_prediction: keep cases whose files are whole, from the same image, model and options.
        save_probabilities: also ``CASE.npz`` with ``probabilities``, float16 ``[k, z, y, x]``.
        overwrite: replace masks that something else made: a person, another model or other options.
        extra: one more file of each case, on record like its mask.
        layout: how the files are called and which there are; None takes the masks alone, with the model's ending.
        part: of many cases, which these are (:meth:`autoseg.dataset.part.CasesPart.take`); others may predict the other
            parts at the same time. None locks the folder for these cases alone.

    Raises:
        AutosegError: the folder cannot be written to, belongs to something else or is being predicted into.
        FaultsError: some cases could not be predicted, for whatever reason; all others are done.
    """
    output = Path(output)
    refuse_other_encoding(output)
    layout = layout or plain_layout(predictor.model.info.file_ending)
    _refuse_foreign_files(output, cases, layout, overwrite)
    check_writable(output)
    gather = partial(records.gather_parts, output)
    with exclusive_part(output, part, doing="predicting into this folder", alone=gather):
        remove_leftovers(output, owned=part is None)
        earlier = _earlier_cases(output, overwrite, cases, part)
        record = PredictionRecord(
            autoseg_version=__version__,
            identity={**predictor.identity, "dataset": predictor.plan.dataset},
            model=predictor.model.folder.resolve().name,
            planner=predictor.plan.planner,
            quick=predictor.plan.quick,
            weights=[path.relative_to(predictor.model.folder).as_posix() for path in predictor.model.weights],
            run=_this_run(predictor),
            cases=earlier,
        )
        if not overwrite:
            _refuse_other_results(output, record, cases)
        layout.begin(output)
        records.write_record(output, record, part)
        run = _FolderRun(predictor, output, record, layout, save_probabilities, extra, part)
        return run.predict(cases, continue_prediction)


def _this_run(predictor: Predictor) -> dict[str, str]:
    """When and with what the folder was last predicted into."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": str(predictor.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _earlier_cases(
    output: Path, overwrite: bool, cases: Sequence[Case], part: CasesPart | None
) -> dict[str, PredictedCase]:
    """What is known of the cases that the record of this run will hold: all, or those of the part.

    A damaged record is begun anew where the user wants all replaced.
    """
    try:
        before = records.read_record(output)
        own = records.read_part(output, part) if part is not None else before
    except AutosegError as error:
        if not overwrite:
            raise
        messages.warn(f"{output / records.FILE_NAME} is begun anew: it {error.fault.problem}")
        if part is None:
            records.forget_parts(output)
        return {}
    names = {*(own.cases if own else ()), *(case.name for case in cases)}
    return {name: case for name, case in before.cases.items() if name in names} if before else {}


def _refuse_foreign_files(output: Path, cases: Sequence[Case], layout: OutputLayout, overwrite: bool) -> None:
    """Masks that no prediction made, such as a reader's, are never replaced unasked."""
    if any(path.parent.resolve() == output.resolve() for case in cases for path in case.images):
        raise AutosegError(
            "the output folder holds the images", where=str(output), fix="choose another folder with -o"
        )
    if overwrite or records.has_record(output):
        return
    there = [name for name in map(layout.mask, cases) if (output / name).exists()]
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
class _Attempt:
    """A case on its way, and what went wrong with it; after that nothing more is done for it."""

    case: Case
    error: AutosegError | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One part of the work, and what it returns; None when something goes wrong, here or before.

        Raises:
            AutosegError: no file can be written any more, which concerns all cases.
        """
        if self.error is not None:
            return None
        try:
            return function(*arguments)
        except Exception as error:  # whatever it is, the other cases go on
            if _concerns_all(error):
                raise
            self.error = _explained(self.case, error)
            return None

    def each(self, parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The parts until something goes wrong, here or behind."""
        while self.error is None:
            try:
                part = next(parts)
            except StopIteration:
                return
            except Exception as error:
                self.error = _explained(self.case, error)
                return
            yield part


@dataclass
class _FolderRun:
    """One run over a folder."""

    predictor: Predictor
    output: Path
    record: PredictionRecord
    layout: OutputLayout
    save_probabilities: bool
    extra: ExtraFile | None = None
    part: CasesPart | None = None
    report: FolderReport = field(default_factory=FolderReport)
    faults: list[Fault] = field(default_factory=list)
    n_cases: int = 0

    def predict(self, cases: Sequence[Case], continue_prediction: bool) -> FolderReport:
        """All cases, see :func:`predict_cases`."""
        for case in cases:
            if case.fault is not None:
                self._conclude(_Attempt(case, AutosegError(**vars(case.fault))))
        todo = self._todo([case for case in cases if case.fault is None], continue_prediction)
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
                if isinstance(loaded, _Attempt):
                    behind.submit(self._conclude, loaded)
                else:
                    self._predict_one(loaded, estimate, behind)
                estimate.next_case()
        messages.tell_notes()
        if self.faults:
            done = len(self.report.predicted) + len(self.report.kept)
            failed = count_of(len(self.report.failed), "case")
            raise FaultsError(
                f"{failed} could not be predicted, {count_of(done, 'is', 'are')} done", self.faults
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
            with staged(case) if case.name in self.record.cases else nullcontext(case) as ready:
                return records.why_not_current(self.output, self.record, ready, self._file_names(case), mask)
        except (AutosegError, OSError):
            return ""

    def _file_names(self, case: Case) -> list[str]:
        """Of all files of a case, the mask first."""
        names = [self.layout.mask(case)]
        names += [case.name + PROBABILITIES_ENDING] if self.save_probabilities else []
        names += [case.name + self.extra.ending] if self.extra else []
        return names + [file.name for file in self.layout.further(case)]

    def _load(self, case: Case) -> _Loaded | _Attempt:
        """Read and preprocess; runs in the reading thread. What fails is an attempt with an error."""
        started = time.perf_counter()
        try:
            with staged(case) as ready:
                raw, forms = self.predictor.read(ready), read_forms(ready.images[0])
                digest = records.input_hash(ready, raw.mask_path)
            preprocessed = self.predictor.preprocess(case.name, raw.image, raw.geometry, raw.mask)
        except Exception as error:  # whatever it is, the other cases go on
            return _Attempt(case, _explained(case, error))
        image = raw.image if self.predictor.needs("image") else None
        return _Loaded(case, started, digest, preprocessed, raw.stored, raw.turn, forms, image)

    def _predict_one(self, loaded: _Loaded, estimate: _Estimate, behind: _Behind) -> None:
        """The network's part; restoring and writing follow behind."""
        attempt = _Attempt(loaded.case)
        fused = attempt.run(self.predictor.fusion, loaded.preprocessed)
        estimate.start_case()
        for logits in attempt.each(self.predictor.logits(loaded.preprocessed, estimate.case_progress)):
            behind.submit(attempt.run, fused.add, logits)
        behind.submit(attempt.run, self._finish, loaded, fused)
        behind.submit(self._conclude, attempt)

    def _finish(self, loaded: _Loaded, fused: Fusion) -> None:
        """Restore, post-process and write one case, its record last; runs in the writing thread."""
        case, back = loaded.case, loaded.turn.back
        result = self.predictor.finish(
            fused,
            loaded.turn.geometry(loaded.stored).spacing_mm,
            image=loaded.raw,
            probabilities=self.save_probabilities or self.extra is not None or self.layout.probabilities,
            inside=loaded.preprocessed.inside,
        )
        names, mask = self._file_names(case), back.array(result.mask)
        scores = result.probabilities
        probabilities = np.asarray(back.array(scores) if scores is not None else None)
        records.remove_superseded(self.output, self.record, case.name, names)
        if self.save_probabilities:
            with atomic_path(self.output / names[1]) as temporary:
                np.savez_compressed(temporary, probabilities=probabilities.astype(np.float16))
        if self.extra is not None:
            self.extra.write(self.output / (case.name + self.extra.ending), case, probabilities)
        kept = probabilities if scores is not None else None
        finished = FinishedCase(case, mask, kept, loaded.stored, loaded.forms)
        for file in self.layout.further(case):
            file.write(self.output / file.name, finished)
        # the mask last: a case that fails before has none
        write_mask(self.output / names[0], self.layout.values(mask), loaded.stored, loaded.forms)
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
            unexpected=loaded.preprocessed.unexpected,
            sources=dict(zip(self.predictor.plan.channel_names, sources_of(case), strict=False)),
        )
        records.write_record(self.output, self.record, self.part)
        self.report.predicted.append(case.name)
        volume_ml = float((mask > 0).sum()) * loaded.stored.voxel_ml
        done = f" ({len(self.report.predicted)} of {self.n_cases})" if self.n_cases > 1 else ""
        planned = self.predictor.plan.preprocessing.orientation
        turned = f"; stored as {loaded.stored.orientation}, turned into {planned} and back" * back.changes
        messages.info(f"{case.name}{done}: {millilitres(volume_ml)} segmented, {seconds:.1f} s{turned}")

    def _conclude(self, attempt: _Attempt) -> None:
        """Put a case on record that could not be predicted; runs in the writing thread, or before it is there."""
        if attempt.error is None:
            return
        name = attempt.case.name
        self._note_failure(attempt.case, attempt.error)
        if not is_name(name):  # no file is made for it, and the record could not be read again
            return
        self.record.cases[name] = PredictedCase(
            status="failed",
            made_by=self.record.made_by,
            input_sha256="",
            files=records.left_of_failed(self.output, self.record, name),
            problem=str(attempt.error),
        )
        records.write_record(self.output, self.record, self.part)

    def _note_failure(self, case: Case, error: AutosegError) -> None:
        inner = error.faults if isinstance(error, FaultsError) else (error.fault,)
        self.faults += [Fault(case.name, _joined(case, f), f.found, f.expected, f.fix) for f in inner]
        self.report.failed.append(case.name)
        messages.warn(readable_text(f"{case.name} could not be predicted: {error.fault.problem}"))


def _concerns_all(error: Exception) -> bool:
    """Whether files can no longer be written, which the next case would find after as long a wait."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_MORE_FILES


def _explained(case: Case, error: Exception) -> AutosegError:
    """What went wrong with a case, in words."""
    if isinstance(error, AutosegError):
        return error
    messages.LOGGER.debug("predicting %s", case.name, exc_info=error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return AutosegError(
            "the main memory is not enough for this case",
            where=case.name,
            found=str(error) or "MemoryError",
            fix="close other programs, or crop the image to the brain",
        )
    if isinstance(error, OSError):
        return AutosegError("cannot be read", where=case.name, found=error.strerror or str(error))
    return AutosegError(
        "an error that autoseg does not know",
        where=case.name,
        found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{_place(error)}",
        fix="open the image in a viewer and save it again; if it looks right, report this with the file's header",
    )


def _place(error: Exception) -> str:
    """Where in the code an error arose, for those who mend it."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in last)


def _joined(case: Case, fault: Fault) -> str:
    where = Path(fault.where).name
    return f"{where}: {fault.problem}" if where not in ("", case.name) else fault.problem


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
        if not accelerates(device) and n > 1:
            on = self._predictor.options.mirror
            text += (
                f" (mirroring is on; without it {n} times faster)"
                if on
                else (f" (mirroring is off; --enable_tta would take {n} times as long)")
            )
        messages.info(text)
