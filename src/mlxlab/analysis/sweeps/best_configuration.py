"""What the runs of the best configuration reached: the means of their results, and how these were judged."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from mlxlab.analysis.sweeps.sweep_jobs import Configuration
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Interval, Metrics, SplitResult
from mlxlab.views.run_view import RunView
from mlxlab.views.verdict import Judgement, judge


@dataclass(frozen=True)
class BestConfiguration:
    """The view of its first run, and the means of the results of all its `count` runs."""

    view: RunView
    result: SplitResult
    judgement: Judgement
    count: int

    @property
    def key(self) -> str:
        """The metric that was judged, with its split."""
        return f"{self.result.split}/{self.judgement.metric}"

    @property
    def is_useless(self) -> bool:
        """Whether it is no better than the weakest baseline."""
        return self.judgement.verdict in ("learned nothing", "ranks only")


def read_best(configuration: Configuration) -> BestConfiguration | None:
    """The finished runs of a configuration; None if no run folder can be read."""
    views = []
    for job in configuration.jobs:
        with suppress(InputNotFoundError, DataError):
            view = RunView(read_run(job.folder), job.folder)
            if job.values and view.record.is_evaluated:
                views.append(view)
    results = [view.result for view in views if view.result is not None]
    if not results:
        return None
    judgement, result = judge_mean(results, views[0].metric)
    return BestConfiguration(views[0], result, judgement, len(results))


def judge_mean(results: Sequence[SplitResult], metric: str) -> tuple[Judgement, SplitResult]:
    """Judges the mean of what all runs have. The gain of each run is that on its own best baseline."""
    first = results[0]
    mean = SplitResult(
        first.split,
        first.rows,
        _means([each.metrics for each in results]),
        baselines={
            name: _means([each.baselines.get(name, {}) for each in results])
            for name in first.baselines
        },
    )
    roc_auc = _mean_interval(each.intervals.get("roc_auc") for each in results)
    if roc_auc is not None:
        mean.intervals["roc_auc"] = roc_auc

    judged = judge(mean, metric)
    gains = {
        judged.weakest: _mean_interval(each.gains.get(judged.weakest) for each in results),
        judged.best: _mean_interval(judge(each, metric).gain_interval for each in results),
    }
    mean.gains = {name: gain for name, gain in gains.items() if gain is not None}
    return judge(mean, metric), mean


def _means(runs: Sequence[Metrics]) -> Metrics:
    """Means of the metrics that are finite in all runs."""
    means: Metrics = {}
    for name in runs[0]:
        values = [each.get(name) for each in runs]
        known = [value for value in values if value is not None and isfinite(value)]
        if len(known) == len(values):
            means[name] = fmean(known)
    return means


def _mean_interval(intervals: Iterable[Interval | None]) -> Interval | None:
    pairs = list(intervals)
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return None
    return fmean(low for low, _ in known), fmean(high for _, high in known)
