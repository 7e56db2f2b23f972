"""The loop over the trials of a study: propose or promote, run, record."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from mlxlab.errors import RunInterrupted
from mlxlab.sweep.pruning.pruner import Pruner
from mlxlab.sweep.search.samplers import Sampler
from mlxlab.sweep.search.study import Study
from mlxlab.sweep.search.trial import Trial, TrialResult


class TrialRunner(Protocol):
    """Runs trials, several at once."""

    @property
    def num_free(self) -> int:
        """How many more may be started now."""

    @property
    def stop_signal(self) -> int:
        """The number of a signal after which nothing is to be started; 0 if there was none."""

    def start(self, trial: Trial, *, continues: bool, more: bool) -> None:
        """Starts a trial, from its latest checkpoint if it `continues`; `more`: others will follow."""

    def wait(self) -> tuple[int, TrialResult | None]:
        """The next trial that ends, and its result; None: a signal stopped it, and it continues another time."""


class OneByOne:
    """Runs each trial where it is waited for.

    Args:
        run: of a trial, and whether it continues; what it raises leaves the trial running.
    """

    stop_signal = 0

    def __init__(self, run: Callable[[Trial, bool], TrialResult]) -> None:
        self.run, self.started = run, deque[tuple[Trial, bool]]()

    @property
    def num_free(self) -> int:
        return 1 - len(self.started)

    def start(self, trial: Trial, *, continues: bool, more: bool) -> None:
        self.started.append((trial, continues))

    def wait(self) -> tuple[int, TrialResult | None]:
        trial, continues = self.started.popleft()
        return trial.number, self.run(trial, continues)


def run_trials(
    study: Study, sampler: Sampler, pruner: Pruner, num_trials: int, runner: TrialRunner
) -> None:
    """Runs trials until `num_trials` are there and none runs or is to be promoted.

    What a process was interrupted in continues first. Every result and every decision is in the study before the next.

    Args:
        sampler: has seen the trials of the study.

    Raises:
        RunInterrupted: a signal came; the running trials were waited for, or stopped.
    """
    starts: dict[int, float] = {}  # of the running trials, by number
    interrupted = deque(study.unfinished)
    while True:
        while runner.num_free > 0 and not runner.stop_signal:
            continues = bool(interrupted)
            trial = study.restart(interrupted.popleft()) if interrupted else None
            if trial is None and (
                promotion := pruner.promotion(study.trials, is_last=_is_last(study, num_trials))
            ):
                trial, continues = study.promote(*promotion), True
            if trial is None and len(study.trials) < num_trials:
                point = sampler.propose(study.trials)
                number = len(study.trials)
                trial = study.add(point, pruner.first_budget(number), pruner.limits(study.trials))
            if trial is None:
                break
            if trial.same_as is None:
                starts[trial.number] = time.monotonic()
                more = len(study.trials) < num_trials or trial.budget is not None
                runner.start(trial, continues=continues, more=more)
        if not starts:
            break
        number, result = runner.wait()
        seconds = time.monotonic() - starts.pop(number)
        if result is None:
            study.stop(study.trials[number], seconds)
        else:
            study.finish(study.trials[number], result, seconds)
    if runner.stop_signal:
        raise RunInterrupted("stopped by a signal", runner.stop_signal)


def _is_last(study: Study, num_trials: int) -> bool:
    return len(study.trials) >= num_trials and not study.unfinished
