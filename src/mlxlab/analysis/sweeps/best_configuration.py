"""What the runs of the best configuration reached: the means of their results, and how these were judged."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from mlxlab.analysis.comparison_subject import common_means
from mlxlab.analysis.sweeps.sweep_jobs import Configuration
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Interval, SplitResult
from mlxlab.views.run_view import RunView
from mlxlab.views.verdict import Judgement, baseline_values, judge, judge_value


@dataclass(frozen=True)
class BestConfiguration:
    """The view of its first run, and how the mean of its `count` runs on the rows of `split` was judged."""

    view: RunView
    split: str
    judgement: Judgement
    count: int

    @property
    def key(self) -> str:
        """The metric that was judged, with its split."""
        return f"{self.split}/{self.judgement.metric}"

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
            if job.value is not None and view.record.is_evaluated:
                views.append(view)
    results = [view.result for view in views if view.result is not None]
    if not results:
        return None
    judgement = judge_runs(results, views[0].metric)
    return BestConfiguration(views[0], results[0].split, judgement, len(results))


def judge_runs(results: Sequence[SplitResult], metric: str) -> Judgement:
    """Judges the mean of runs. The gain of each run is that on its own best baseline."""
    values = [each.metrics.get(metric) for each in results]
    known = [value for value in values if value is not None]
    value = None
    if len(known) == len(values):
        value = fmean(known)
    baselines = common_means([baseline_values(each, metric) for each in results])
    judged = judge_value(metric, value, baselines, {})
    gains = {
        judged.weakest: _mean_interval(each.gains.get(judged.weakest) for each in results),
        judged.best: _mean_interval(judge(each, metric).gain_interval for each in results),
    }
    area = _mean_interval(each.intervals.get("roc_auc") for each in results)
    known_gains = {name: gain for name, gain in gains.items() if gain is not None}
    return judge_value(metric, value, baselines, known_gains, area)


def _mean_interval(intervals: Iterable[Interval | None]) -> Interval | None:
    pairs = list(intervals)
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return None
    return fmean(low for low, _ in known), fmean(high for _, high in known)
