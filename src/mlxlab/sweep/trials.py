"""The loop over the trials of a study: propose, run, record."""

import time
from collections.abc import Callable
from typing import NamedTuple

from mlxlab.sweep.samplers import Sampler
from mlxlab.sweep.study import Study, Trial


class TrialResult(NamedTuple):
    """The values of the objectives, or why there are none."""

    values: list[float]
    reason: str = ""


def run_trials(study: Study, sampler: Sampler, num_trials: int, run: Callable[[Trial, bool], TrialResult]) -> None:
    """Runs trials until `num_trials` are finished. A point that an earlier trial has takes its result.

    Args:
        sampler: has seen the trials of the study.
        run: of a trial, and whether an earlier process was interrupted in it; what it raises leaves the trial running.
    """
    while len(study.finished) < num_trials:
        interrupted = study.running
        trial = interrupted or study.add(sampler.propose(len(study.trials)))
        start = time.monotonic()
        same = next((other for other in study.finished if other.point == trial.point), None)
        result = run(trial, interrupted is not None) if same is None else TrialResult(same.values, same.reason)
        trial = study.finish(trial, result.values, result.reason, time.monotonic() - start, same)
        sampler.record(trial.point, trial.values or None)
