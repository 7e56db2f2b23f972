"""The plots of a sweep's page: ranking, importance of the keys, learning curves."""

from collections.abc import Sequence

import numpy as np

from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, SweepJob, short_names
from mlxlab.metric_names import better_direction
from mlxlab.stats.importance import Importance
from mlxlab.stats.ranking import Ranking
from mlxlab.views.plots import Plot, Row, RowPlot, Series, short_label
from mlxlab.wording import percent

_MAX_RANKED = 25
_MAX_COLORED = 5  # configurations
_MAX_POINTS = 5000  # of all learning curves
_STYLES = {"winner": "good", "worse": "soft"}  # by the standing


def ranking_plot(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking
) -> RowPlot:
    """A dot for each seed, the mean and its interval; the best configuration on top."""
    rows = []
    marks = f"a dot per {sweep.repetition}"
    for entry in ranking.entries[:_MAX_RANKED]:
        configuration = configurations[entry.index]
        values = list(configuration.results(sweep.objective).values())
        row = Row(_name(configuration), values, style=_STYLES.get(entry.standing, "s0"))
        if np.isfinite(entry.margin):
            marks = f"a dot per {sweep.repetition}, the mean and its 95 % interval"
            span = (entry.mean - entry.margin, entry.mean + entry.margin)
            row = Row(row.name, values, mean=entry.mean, span=span, style=row.style)
        rows.append(row)
    direction = better_direction(sweep.objective)
    objective = f"{short_label(sweep.objective)} ({direction} is better)"
    return RowPlot(f"Configurations: {marks}", objective, rows)


def importance_plot(importance: Importance) -> RowPlot:
    rows = []
    for key, share in importance.shares.items():
        name = f"{short_label(key)}: {percent(share, 0)}"
        rows.append(Row(name, [share], span=(0.0, share)))
    x_label = "share of the importance of all keys"
    return RowPlot("Importance of each key", x_label, rows, x_range=(0.0, 1.0))


def curve_plot(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking
) -> Plot | None:
    """The objective of every job by step, those of the best configurations in colour; None without a curve."""
    jobs = {job.number: job for job in sweep.jobs if len(job.curve) > 1}
    if not jobs:
        return None
    max_points = max(2, _MAX_POINTS // len(jobs))

    def series(name: str, job: SweepJob, style: str) -> Series:
        return Series(name, job.curve, style=style, max_points=max_points)

    colored = []
    for place, entry in enumerate(ranking.entries[:_MAX_COLORED]):
        configuration = configurations[entry.index]
        name = _name(configuration)
        for each in configuration.jobs:
            if each.number in jobs:
                colored.append(series(name, jobs.pop(each.number), f"s{place}"))
                name = ""
    others = [series("", job, "soft") for job in jobs.values()]
    end = max(job.curve[-1][0] for job in sweep.jobs if job.curve)
    return Plot(sweep.objective, [*others, *colored], x_range=(0, max(1, end)))


def _name(configuration: Configuration) -> str:
    """Without the paths of its keys, if their last parts tell them apart."""
    names = short_names(configuration.point)
    texts = [f"{names[key]}={value}" for key, value in configuration.labels.items()]
    return short_label(" ".join(texts))
