"""Where the training of a fold stands and how long it takes: told by iteration, estimated from the first ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from autoseg import messages
from autoseg.plan import Plan
from autoseg.training.estimate import DAY, Ahead, Amounts, Left, Measured, evening, left_words, what_is_left

FIRST_LOOKS, LONG_LOOK = 3, 20.0
"""The estimate is made after so many timed looks, or when they took so many seconds. The look before them also sets up
the network and counts only when it was as long."""
REMEMBERED = 50  # looks


class FoldProgress:
    """The state of a fold that is trained, and what is said of it.

    The training says when stages, epochs and validations begin and end, and where it looked at the loss, which waits
    for the device. The times between two looks of an epoch are measured; all else follows from them.

    Args:
        plan: the plan.
        amounts: what there is to do beside iterations.
        done: members and stages (counted from 0) that are trained already.
        device: in words.
        advice: what to type before ``--set`` for a quick plan; empty where the plan is one.
        clock: seconds.
        ticker: where it is told; None for the terminal or the log.
    """

    def __init__(
        self,
        plan: Plan,
        amounts: Amounts,
        done: Collection[tuple[int, int]] = (),
        *,
        device: str = "this device",
        advice: str = "",
        clock: Callable[[], float] = time.monotonic,
        ticker: messages.Ticker | None = None,
    ) -> None:
        self.plan, self.amounts, self.measured = plan, amounts, Measured()
        self._device, self._advice, self._clock = device, advice, clock
        self._ticker = ticker or messages.Ticker(clock)
        runs = [(m, s) for m in range(plan.recipe.members) for s in range(len(plan.recipe.stages))]
        self._ahead = [run for run in runs if run not in done]
        self._at = Ahead(0)
        self._looks: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)
        self._n_looks, self._said = 0, False
        self._mark, self._validating = 0.0, 0.0
        self._ended: float | None = None
        self._case_times: deque[float] = deque(maxlen=REMEMBERED)
        self._rests: deque[float] = deque(maxlen=REMEMBERED)

    # ------------------------------------------------------------------------------------- what the training says

    def begin_stage(self, member: int, index: int, iterations: int, epoch: int = 0, done: int = 0) -> None:
        """A stage begins or goes on; all before it are trained.

        Args:
            member, index: counted from 0.
            iterations: in an epoch.
            epoch: the next one, counted from 0.
            done: its iterations that were trained before.
        """
        self._ahead = [run for run in self._ahead if run >= (member, index)]
        self._at, self._ended = Ahead(index, epoch), None
        self.measured.iterations[index] = iterations
        self._looks.clear()
        self._n_looks, self._said = 0, index in self.measured.iteration
        timing = "" if self._said else "; the first iterations are timed"
        if done >= iterations:
            timing = (
                f"; of epoch {epoch + 1} only the end is left, with its validation where one is due{timing}"
            )
        messages.info(
            f"{self._run()}{messages.count_of(self.plan.recipe.stages[index].epochs, 'epoch')} of "
            f"{messages.count_of(iterations, 'iteration')}{timing}"
        )
        self._ticker.tell(self.where())

    def begin_epoch(self, epoch: int, iteration: int) -> None:
        """The next iteration, counted from 0, is about to begin."""
        now = self._clock()
        if self._ended is not None:
            self._rests.append(now - self._ended)
        if len(self._rests) > 1:
            rests = list(self._rests)[1:]  # the first one also imports what draws
            self.measured.rest = sum(rests) / len(rests)
        self._at, self._mark = replace(self._at, epoch=epoch, iteration=iteration), now

    def looked(self, iteration: int, loss: float) -> None:
        """So many iterations of the epoch are done; ``loss`` is their mean."""
        now = self._clock()
        seconds, steps = now - self._mark, iteration - self._at.iteration
        self._at, self._mark, self._n_looks = replace(self._at, iteration=iteration), now, self._n_looks + 1
        if self._n_looks > 1 or seconds >= LONG_LOOK:
            self._looks.append((steps, seconds))
            self._measure()
        if self._ticker.due:
            self._ticker.tell(f"{self.where()}, loss {loss:.4g}{self._left_text()}", self._short(loss))

    def end_iterations(self) -> None:
        """All iterations of the epoch are done; validation and saving follow."""
        self._ended = self._clock()

    def validating(self, number: int, count: int) -> None:
        """Case ``number`` of ``count``, from 0, is validated next; all are when the two are equal."""
        now = self._clock()
        if number:
            self._case_times.append(now - self._validating)
            self.measured.case = sum(self._case_times) / len(self._case_times)
            if self._ended is not None:
                self._ended += now - self._validating  # no part of the rest
        self._validating = now
        if number < count:
            self._ticker.tell(f"{self.where()}, validating case {number + 1} of {count}")

    def end_epoch(self, ended: bool) -> Left | None:
        """What is left after the epoch; ``ended`` says whether the stage is over."""
        self._ticker.said()
        self._at = replace(self._at, epoch=self._at.epoch + 1, iteration=0)
        if ended:
            self._at = replace(self._at, epoch=self.plan.recipe.stages[self._at.index].epochs)
        return self.left()

    def close(self) -> None:
        """Nothing is trained any more."""
        self._ticker.close()

    # ------------------------------------------------------------------------------------------ what is said of it

    def left(self) -> Left | None:
        """The time that is left; None before it was measured."""
        others = [Ahead(index) for _, index in self._ahead[1:]]
        return what_is_left(self.plan, self.amounts, self.measured, [self._at, *others])

    def where(self) -> str:
        """Member, stage, epoch and iteration in words, those that there are several of."""
        epochs, count = (
            self.plan.recipe.stages[self._at.index].epochs,
            self.measured.iterations[self._at.index],
        )
        epoch = min(self._at.epoch + 1, epochs)
        return f"{self._run(', ')}epoch {epoch} of {epochs}, iteration {self._at.iteration} of {count}"

    def _run(self, end: str = ": ") -> str:
        """Member and stage with what follows, empty where there is one of each."""
        recipe, (member, index) = self.plan.recipe, self._ahead[0]
        parts = [f"member {member + 1} of {recipe.members}"] if recipe.members > 1 else []
        parts += [f"stage {recipe.stages[index].name}"] if len(recipe.stages) > 1 else []
        return ", ".join(parts) + end if parts else ""

    def _left_text(self) -> str:
        left = self.left()
        return (
            f"; left: epoch {messages.duration(left.epoch)}, {left_words(left)}" if left is not None else ""
        )

    def _short(self, loss: float) -> str:
        """The same in fractions: ``2/3 train 12/700 30/250 loss 0.41; stage 3 h, fold 9 h left``."""
        recipe, (member, index) = self.plan.recipe, self._ahead[0]
        stage, left = recipe.stages[index], self.left()
        parts = [f"{member + 1}/{recipe.members}"] if recipe.members > 1 else []
        parts += [stage.name] if len(recipe.stages) > 1 else []
        parts += [
            f"{self._at.epoch + 1}/{stage.epochs}",
            f"{self._at.iteration}/{self.measured.iterations[index]}",
        ]
        return f"{' '.join(parts)} loss {loss:.3g}{f'; {left_words(left)} left' if left is not None else ''}"

    def _measure(self) -> None:
        """Take the last looks into account; say the estimate when there are enough."""
        steps, seconds = (sum(values) for values in zip(*self._looks, strict=True))
        self.measured.iteration[self._at.index] = seconds / steps
        if not self._said and (len(self._looks) >= FIRST_LOOKS or seconds >= LONG_LOOK):
            self._said = True
            for line in self._estimate():
                messages.info(line)
            self._ticker.said()

    def _estimate(self) -> Iterable[str]:
        """How long it all takes, and what to do where that is more than a day."""
        left = self.left()
        if left is None:
            return
        step = self.measured.iteration[self._at.index]
        patience = " or less (patience)" if left.whole else ", unless patience ends a stage earlier"
        patience = patience if any(stage.patience for stage in self.plan.recipe.stages) else ""
        count = self.measured.iterations[self._at.index]
        yield (
            f"{self._run()}measured on {self._device}: {_step(step)} for an iteration, "
            f"{messages.duration(step * count)} for an epoch of {count}; left: {left_words(left)}{patience}"
        )
        if left.fold > DAY:
            yield from self._advise()

    def _advise(self) -> Iterable[str]:
        """The settings that make it an evening."""
        yield "that is more than a day on this device; for a result in an evening press Ctrl-C and take one of these:"
        if self._advice:
            yield f"  a short plan for trying out:  {self._advice} --set planner.length=quick"
        found = evening(self.plan, self.amounts, self.measured)
        if found is None:
            yield "  a smaller network or patch: even one epoch of this plan takes longer than an evening"
            return
        words, seconds = found
        yield (
            f"  this plan, cut short:         the same command with --overwrite --set {' '.join(words)}  "
            f"(about {messages.duration(seconds)})"
        )


def _step(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
