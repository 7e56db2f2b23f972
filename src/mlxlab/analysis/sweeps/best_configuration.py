"""What the runs of the best configuration reached, in the terms of a run's report: metric, baselines, data, model."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean

from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.final_evaluation.findings import same_as_weakest
from mlxlab.experiment.manifest import read_manifest
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import RunMetrics
from mlxlab.experiment.run_report.results import Results, results_of
from mlxlab.experiment.run_report.run_files import RunFiles, read_run_files
from mlxlab.files.untrusted import read_json

Interval = tuple[float, float]


@dataclass(frozen=True)
class BestConfiguration:
    """The files of its first run, and the means of the results of all its `count` runs."""

    files: RunFiles
    results: Results
    count: int

    @property
    def finding(self) -> str:
        """A sentence if the best configuration is no better than the weakest baseline, else ""."""
        results = self.results
        if not results.is_no_better or results.value is None:
            return ""
        same = same_as_weakest(
            results.metric, results.value, results.weakest, results.baselines[results.weakest]
        )
        start = (
            "The best configuration learned nothing:"
            if results.learned_nothing
            else "In the best configuration"
        )
        same = "; ".join(filter(None, [same, results.ranking]))
        return f"{start} {same}."


def read_best(sweep: Sweep, configuration: Configuration) -> BestConfiguration | None:
    """The finished runs of a configuration; None if no run folder can be read."""
    folders = [
        sweep.folders[job.number]
        for job in configuration.jobs
        if job.values and job.same_as is None and job.number in sweep.folders
    ]
    results, readable = [], []
    for folder in folders:
        with suppress(InputNotFoundError, DataError):
            metrics = read_json(folder / METRICS, RunMetrics)
            results.append(results_of(RunFiles(folder, read_manifest(folder), "DONE", metrics)))
            readable.append(folder)
    if not results:
        return None
    return BestConfiguration(read_run_files(readable[0]), mean_results(results), len(results))


def mean_results(results: Sequence[Results]) -> Results:
    """Means of what all runs have. The gain of each is that on its own best baseline; means are of both ends."""
    first = results[0]
    values = {key: _mean(each.values.get(key) for each in results) for key in first.values}
    means = {name: _mean(each.baselines.get(name) for each in results) for name in first.baselines}
    baselines = {name: value for name, value in means.items() if value is not None}
    roc_auc = _mean_interval([each.roc_auc for each in results])
    mean = Results(
        first.metric, first.split, values, None, first.rows, baselines, None, roc_auc=roc_auc
    )
    if not baselines:
        return mean
    gain = _mean_interval([each.gain for each in results])
    return replace(
        mean, gain=gain, weakest_gain=_mean_interval([each.weakest_gain for each in results])
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """None if a value is missing or not finite."""
    finite = [value if value is not None and isfinite(value) else None for value in values]
    known = [value for value in finite if value is not None]
    return fmean(known) if len(known) == len(finite) else None


def _mean_interval(intervals: Sequence[Interval | None]) -> Interval | None:
    known = [interval for interval in intervals if interval is not None]
    return (
        (fmean(low for low, _ in known), fmean(high for _, high in known))
        if len(known) == len(intervals)
        else None
    )
