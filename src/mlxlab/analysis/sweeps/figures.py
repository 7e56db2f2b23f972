"""The figures of a sweep's report as PNG: ranking, importance of keys, parallel coordinates, learning curves."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.analysis.sweeps.importance import Importance
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, short_names
from mlxlab.figures import label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
MAX_RANKED, MAX_LINES, MAX_KEYS, MAX_CURVES, MAX_TICKS = 25, 500, 8, 100, 8
_GREY = "dimgray"  # readable on a dark page too, where images are inverted


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
    if len(order) > 2 and len(sweep.swept) > 1:
        figures["parallel"] = _parallel_coordinates(sweep, order, ranking)
    if any(len(job.curve) > 1 for job in sweep.jobs):
        figures["curves"] = _learning_curves(sweep, order)
    return {name: _png(figure) for name, figure in figures.items()}


def _ranking(sweep: Sweep, order: Sequence[Configuration], ranking: Ranking) -> "Figure":
    """A dot for each seed, the mean and its interval, under the name; the best configuration on top."""
    entries = ranking.entries[:MAX_RANKED]
    figure, axis = _new_axes(5.0, 0.7 + 0.42 * len(entries))
    for y, (entry, configuration) in enumerate(zip(entries, order, strict=False)):
        values = list(configuration.results(sweep.objective).values())
        color = "C2" if entry.standing == "winner" else _GREY if entry.standing == "worse" else "C0"
        axis.plot(values, [y] * len(values), ".", color=color, alpha=0.6)
        if np.isfinite(entry.margin):
            axis.errorbar(
                entry.mean, y, xerr=entry.margin, fmt="|", color=color, markersize=10, capsize=3
            )
        name = _name(configuration, 64)
        axis.text(
            0.01, y - 0.28, name, fontsize=8, va="center", transform=axis.get_yaxis_transform()
        )
    axis.set_yticks([])
    has_intervals = any(np.isfinite(entry.margin) for entry in entries)
    one = sweep.repetitions.removesuffix("s")
    marks = f": a dot per {one}, mean, 95 % interval" if has_intervals else f", one {one}"
    axis.set(xlabel=label(f"{sweep.objective}{marks}"), ylim=(len(entries) - 0.5, -0.7))
    return figure


def _importance(importance: Importance) -> "Figure":
    figure, axis = _new_axes(5.0, 0.8 + 0.42 * len(importance.shares))
    axis.barh(
        range(len(importance.shares)), list(importance.shares.values()), height=0.35, color="C0"
    )
    for y, key in enumerate(importance.shares):
        axis.text(
            0.01,
            y - 0.33,
            label(key, 64),
            fontsize=8,
            va="center",
            transform=axis.get_yaxis_transform(),
        )
    axis.set_yticks([])
    axis.set(
        xlabel="share of the importance of all keys",
        xlim=(0, 1),
        ylim=(len(importance.shares) - 0.5, -0.7),
    )
    return figure


def _parallel_coordinates(
    sweep: Sweep, order: Sequence[Configuration], ranking: Ranking
) -> "Figure":
    """A line for each configuration through its values of the keys, coloured by the objective."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    entries, keys = ranking.entries[:MAX_LINES], sweep.swept[:MAX_KEYS]
    figure, axis = _new_axes(1.0 + 1.4 * (len(keys) + 1), 3.6)
    means = np.array([entry.mean for entry in entries])
    heights = [_heights(axis, x, key, order[: len(entries)]) for x, key in enumerate(keys)]
    span = float(np.ptp(means)) or 1.0
    heights.append((means - means.min()) / span)
    for fraction in (0.0, 0.5, 1.0):
        axis.text(
            len(keys) + 0.04,
            fraction,
            f"{means.min() + fraction * span:.4g}",
            fontsize=8,
            va="center",
        )
    scale, palette = (
        Normalize(means.min(), means.min() + span),
        colormaps["viridis" if sweep.minimised else "viridis_r"],
    )
    for line in range(len(entries) - 1, -1, -1):  # the best ones on top
        width, alpha = (2.2, 1.0) if line == 0 else (1.0, 0.6)
        y = [column[line] for column in heights]
        axis.plot(
            range(len(keys) + 1), y, color=palette(scale(means[line])), linewidth=width, alpha=alpha
        )
    for x in range(len(keys) + 1):
        axis.axvline(x, color="black", linewidth=0.8)
    axis.set_xticks(
        range(len(keys) + 1), [label(name, 22) for name in [*keys, sweep.objective]], fontsize=8
    )
    axis.set_yticks([])
    axis.set(xlim=(-0.3, len(keys) + 0.5), ylim=(-0.05, 1.05))
    return figure


def _heights(axis: "Axes", x: int, key: str, order: Sequence[Configuration]) -> np.ndarray:
    """Heights from 0 to 1 of the values of a key, which are written next to its axis."""
    texts, labels = ([each.point[key] for each in order], [each.labels[key] for each in order])
    try:
        numbers = np.array([float(text) for text in texts])
        if not np.isfinite(numbers).all():
            raise ValueError
        positions = (
            np.log(numbers)
            if numbers.min() > 0 and numbers.max() >= 20 * numbers.min()
            else numbers
        )
    except ValueError:
        names = {name: index for index, name in enumerate(sorted(set(texts)))}
        positions = np.array([float(names[text]) for text in texts])
    span = float(np.ptp(positions))
    heights = (positions - positions.min()) / span if span else np.full(len(texts), 0.5)
    ticks = dict(sorted(zip(heights.round(6), labels, strict=True)))
    shown = list(ticks.items())
    for index in np.unique(np.linspace(0, len(shown) - 1, min(len(shown), MAX_TICKS)).astype(int)):
        height, text = shown[index]
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axis.text(x + 0.04, height, label(text, 16), fontsize=8, va="center", bbox=box, zorder=5)
    return np.asarray(heights)


def _learning_curves(sweep: Sweep, order: Sequence[Configuration]) -> "Figure":
    """The objective of every job by step; those of the best configurations in colour."""
    figure, axis = _new_axes(5.0, 3.4)
    ranked = [
        (place, job) for place, each in enumerate(order) for job in each.jobs if len(job.curve) > 1
    ][:MAX_CURVES]
    numbers = {job.number for _, job in ranked}
    others = [job for job in sweep.jobs if len(job.curve) > 1 and job.number not in numbers]
    curves = [*ranked, *((len(order), job) for job in others[: MAX_CURVES - len(ranked)])]
    named: set[int] = set()
    for place, job in reversed(curves):
        is_colored = place < min(5, len(order))
        name = _name(order[place], 60) if is_colored and place not in named else None
        named.add(place)
        steps, values = np.array(job.curve).T
        marker, color = "." if len(job.curve) < 30 else None, f"C{place}" if is_colored else _GREY
        axis.plot(
            steps,
            values,
            marker=marker,
            label=name,
            color=color,
            zorder=3 if is_colored else 2,
            linewidth=1.0,
        )
    axis.set(xlabel="step", ylabel=label(sweep.objective))
    axis.set_xlim(left=0)
    if named & set(range(5)):
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(
            handles[::-1], labels[::-1], fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0)
        )
    return figure


def _new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = new_figure(width, height)
    axis = figure.subplots()
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=6)
    return figure, axis


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a name in another script
        figure.savefig(buffer, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _name(configuration: Configuration, limit: int) -> str:
    """Without the paths of its keys, if their last parts tell them apart."""
    names = short_names(configuration.point)
    return label(
        " ".join(f"{names[key]}={value}" for key, value in configuration.labels.items()), limit
    )
