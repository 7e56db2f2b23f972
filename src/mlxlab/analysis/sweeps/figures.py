"""The figures of a sweep's report as PNG: ranking, importance of keys, learning curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, short_names
from mlxlab.figures import label, new_figure, render_png
from mlxlab.stats.importance import Importance
from mlxlab.stats.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_RANKED = 25
_MAX_COLORED = 5  # configurations
_GREY = "dimgray"  # readable on a dark page too, where images are inverted
_COLORS = {"winner": "C2", "worse": _GREY}  # of the dots, by the standing


def draw_figures(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, importance: Importance
) -> dict[str, bytes]:
    """PNG files by name; only those that have something to show."""
    order = [configurations[each.index] for each in ranking.entries]
    figures = {}
    if len(order) > 1:
        figures["ranking"] = _ranking(sweep, order, ranking)
    if importance.shares:
        figures["importance"] = _importance(importance)
    if any(len(job.curve) > 1 for job in sweep.jobs):
        figures["curves"] = _learning_curves(sweep, order)
    return {name: render_png(figure) for name, figure in figures.items()}


def _ranking(sweep: Sweep, order: Sequence[Configuration], ranking: Ranking) -> "Figure":
    """A dot for each seed, the mean and its interval, under the name; the best configuration on top."""
    entries = ranking.entries[:_MAX_RANKED]
    figure, axis = _new_axes(5.0, 0.7 + 0.42 * len(entries))
    marks = f"one {sweep.repetition}"
    for y, (entry, configuration) in enumerate(zip(entries, order, strict=False)):
        values = list(configuration.results(sweep.objective).values())
        color = _COLORS.get(entry.standing, "C0")
        axis.plot(values, [y] * len(values), ".", color=color, alpha=0.6)
        if np.isfinite(entry.margin):
            marks = f"a dot per {sweep.repetition}, mean, 95 % interval"
            axis.errorbar(
                entry.mean, y, xerr=entry.margin, fmt="|", color=color, markersize=10, capsize=3
            )
        _write_above(axis, y, _name(configuration))
    axis.set(xlabel=label(f"{sweep.objective}: {marks}"), ylim=(len(entries) - 0.5, -0.7))
    return figure


def _importance(importance: Importance) -> "Figure":
    shares = importance.shares
    figure, axis = _new_axes(5.0, 0.8 + 0.42 * len(shares))
    axis.barh(range(len(shares)), list(shares.values()), height=0.35, color="C0")
    for y, key in enumerate(shares):
        _write_above(axis, y, label(key))
    axis.set(
        xlabel="share of the importance of all keys",
        xlim=(0, 1),
        ylim=(len(shares) - 0.5, -0.7),
    )
    return figure


def _write_above(axis: "Axes", y: int, text: str) -> None:
    """Writes a name above what is drawn at `y`, in place of a tick."""
    transform = axis.get_yaxis_transform()
    axis.text(0.01, y - 0.31, text, fontsize=8, va="center", transform=transform)
    axis.set_yticks([])


def _learning_curves(sweep: Sweep, order: Sequence[Configuration]) -> "Figure":
    """The objective of every job by step; those of the best configurations in colour."""
    figure, axis = _new_axes(5.0, 3.4)
    colored = {}
    for place, configuration in enumerate(order[:_MAX_COLORED]):
        for job in configuration.jobs:
            colored[job.number] = place
    named: set[int] = set()
    for job in sorted(sweep.jobs, key=lambda job: colored.get(job.number, -1)):
        if len(job.curve) < 2:
            continue
        steps, values = zip(*job.curve, strict=True)
        if job.number not in colored:
            axis.plot(steps, values, marker=".", color=_GREY, linewidth=1.0)
            continue
        place = colored[job.number]
        name = None
        if place not in named:
            name = _name(order[place])
            named.add(place)
        axis.plot(steps, values, marker=".", label=name, color=f"C{place}", linewidth=1.0, zorder=3)
    axis.set(xlabel="step", ylabel=label(sweep.objective))
    axis.set_xlim(left=0)
    if named:
        axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = new_figure(width, height)
    axis = figure.subplots()
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=6)
    return figure, axis


def _name(configuration: Configuration) -> str:
    """Without the paths of its keys, if their last parts tell them apart."""
    names = short_names(configuration.point)
    texts = [f"{names[key]}={value}" for key, value in configuration.labels.items()]
    return label(" ".join(texts))
