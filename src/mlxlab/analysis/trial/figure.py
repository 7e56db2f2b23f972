"""The figure of a trial: both values of each pair of runs, and the gains with their mean and its interval."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.analysis.trial.record import FILE as TRIAL
from mlxlab.analysis.trial.record import TrialRecord, last_look, pairs_of
from mlxlab.figures import label, new_figure, save_figure
from mlxlab.metric_names import better_direction, plain_key, sign_of
from mlxlab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "pairs.png"
CAPTION = "A line for each pair, from the baseline to the change. Below: the gains, their mean and its interval"
_MAX_NAMED = 30  # seeds
_BETTER = "C2"
_WORSE = "C3"


def draw_pairs(record: TrialRecord) -> "Figure | None":
    """None without a finished pair."""
    pairs = pairs_of(record)
    if not pairs:
        return None
    height = 1.0 + 0.28 * min(len(pairs), _MAX_NAMED)
    figure = new_figure(5.0, height + 1.6)
    values, gains = figure.subplots(2, 1, height_ratios=(height, 1.0))
    _draw_values(values, pairs, record["question"]["metric"])
    _draw_gains(gains, record)
    return figure


def _draw_values(axes: "Axes", pairs: dict[int, tuple[float, float]], metric: str) -> None:
    """A line from the baseline to the change for each seed."""
    sign = sign_of(metric)
    baseline, changed = zip(*pairs.values(), strict=True)
    colors = [_BETTER if sign * (new - old) > 0 else _WORSE for old, new in pairs.values()]
    axes.hlines(range(len(pairs)), baseline, changed, colors=colors, linewidth=1.5, zorder=1)
    axes.scatter(baseline, range(len(pairs)), facecolors="white", edgecolors="black", zorder=2)
    axes.scatter(changed, range(len(pairs)), c=colors, zorder=3)
    named = len(pairs) <= _MAX_NAMED
    axes.set_yticks(
        range(len(pairs)) if named else [], [f"seed {seed}" for seed in pairs] if named else []
    )
    direction = better_direction(metric)
    axes.set(
        ylim=(len(pairs) - 0.5, -0.5), xlabel=f"{label(plain_key(metric))} ({direction} is better)"
    )
    axes.set_title("hollow: baseline; filled: changed (green better, red worse)", fontsize=9)


def _draw_gains(axes: "Axes", record: TrialRecord) -> None:
    """A dot per pair; below, the mean and its interval, if there is one around it."""
    gains = record["gains"]
    mean, low, high = last_look(record)
    axes.plot(gains, [0] * len(gains), "o", color="C0", alpha=0.6)
    if (
        mean is not None
        and low is not None
        and high is not None
        and -math.inf < low <= mean <= high < math.inf
    ):
        axes.errorbar(
            mean, 1, xerr=[[mean - low], [high - mean]], fmt="D", color="black", capsize=4
        )
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks([0, 1], ["pairs", "mean,\ninterval"])
    axes.set(ylim=(1.6, -0.6), xlabel="gain: right of 0 the change is better")


def log_trial(record: TrialRecord, folder: Path, tracker: Tracker) -> None:
    """Records a trial as the parent of its runs: verdict, gain and interval by the number of pairs, and files."""
    tags = {"kind": "trial", "trial.baseline": record["question"]["baseline"]}
    tags["trial.change"] = " ".join(record["question"]["change"])
    if record["verdict"] is not None:
        tags |= {"trial.verdict": record["verdict"], "trial.reason": record["reason"]}
    tracker.set_tags(tags)
    for each in record["looks"]:
        values = {"trial/gain": each["mean"], "trial/low": each["low"], "trial/high": each["high"]}
        finite = {name: value for name, value in values.items() if value is not None}
        tracker.log_metrics(each["pairs"], finite)
    tracker.log_artifact(folder / TRIAL)
    figure = draw_pairs(record)
    if figure is not None:
        save_figure(tracker, figure, folder / FILE)
