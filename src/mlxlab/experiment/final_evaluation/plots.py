"""Plots of the final evaluation on the validation examples: PNG files in `plots/` and artifacts."""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.experiment.final_evaluation.evaluate import FinalEvaluation
from mlxlab.experiment.final_evaluation.files import class_names
from mlxlab.figures import new_figure, save_figure
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.metrics.calibration import BINS, reliability
from mlxlab.training.metrics.classification import confusion_matrix
from mlxlab.training.metrics.labelled import predicted_classes
from mlxlab.training.metrics.ranking import precision_recall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
MAX_CONFUSION, MAX_CURVES, MAX_AVERAGED = 20, 10, 100  # classes
FEW = 5  # classes whose zeros are shown
MAX_HORIZONTAL = 20  # characters of names that fit below a plot side by side
MAX_POINTS = 2000  # of a curve or a scatter plot
MAX_NAME = 24  # characters of a class


def save_plots(results: FinalEvaluation, tracker: Tracker, folder: Path) -> None:
    """Draws what the task has: confusion, reliability and precision-recall, or predicted against true values."""
    task, evaluation = results.task, results.splits[0].evaluation
    outputs, targets = evaluation.outputs, evaluation.targets
    if task.kind == "regression":
        figures = {"predicted": plot_predicted(outputs, targets)}
    else:
        names, single = plot_names(class_names(task)), task.kind == "classification"
        figures = {}
        binned = (outputs.ravel(), targets.ravel() > 0)
        if single:
            predictions = predicted_classes(task, outputs, results.thresholds)
            figures["confusion"] = plot_confusion(predictions, targets, names)
            binned = (outputs.max(axis=1), outputs.argmax(axis=1) == targets)
        figures["reliability"] = plot_reliability(*binned)
        curves = plot_precision_recall(outputs, targets, names, task.positive_class)
        figures |= {"precision_recall": curves}
    for name, figure in figures.items():
        save_figure(tracker, figure, folder / "plots" / f"{name}.png")


def plot_confusion(predictions: np.ndarray, targets: np.ndarray, names: list[str]) -> "Figure":
    """Counts by true and predicted class; of more than 20 classes those that are confused most often."""
    shown, title = np.arange(len(names)), f"{len(targets):,} validation examples"
    if len(names) > MAX_CONFUSION:
        wrong = predictions != targets
        confused = sum(
            np.bincount(values[wrong], minlength=len(names)) for values in (predictions, targets)
        )
        shown = np.sort(np.argsort(-np.asarray(confused), kind="stable")[:MAX_CONFUSION])
        title = f"the {MAX_CONFUSION} most confused of {len(names):,} classes"
    inside = np.isin(predictions, shown) & np.isin(targets, shown)
    predicted, true = (np.searchsorted(shown, values[inside]) for values in (predictions, targets))
    counts = confusion_matrix(predicted, true, len(shown))
    labels = [names[number] for number in shown]
    longest = max(map(len, labels))
    rotated = longest * len(labels) > MAX_HORIZONTAL
    size = max(3.2, 0.38 * len(shown) + 1.2) + 0.06 * max(0, longest - 8)
    figure = new_figure(size + 0.4, size)
    axis = figure.subplots()
    axis.imshow(counts, cmap="Blues")
    for row, column in np.argwhere(counts) if len(shown) > FEW else np.ndindex(counts.shape):
        color = "white" if counts[row, column] > counts.max() / 2 else "black"
        axis.text(
            column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8
        )
    axis.set_xticks(range(len(shown)), labels, rotation=90 if rotated else 0)
    axis.set_yticks(range(len(shown)), labels)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def plot_reliability(confidence: np.ndarray, holds: np.ndarray) -> "Figure":
    """Frequency by probability, in bins of equal width: calibrated probabilities lie on the diagonal."""
    bins = reliability(confidence, holds)
    figure = new_figure(3.6, 3.4)
    axis = figure.subplots()
    centres = (np.arange(BINS) + 0.5) / BINS
    axis.bar(centres, np.nan_to_num(bins.accuracy), 0.9 / BINS, color="tab:blue")
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for center, count in zip(centres, bins.counts, strict=True):
        if count:
            axis.text(center, 1.04, f"{count:,}", ha="center", va="bottom", fontsize=8, rotation=90)
    axis.set(
        xlabel="predicted probability (numbers: predictions)",
        ylabel="share that is right",
        xlim=(0, 1),
    )
    axis.set_ylim(0, 1.3)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.set_title(f"expected calibration error {bins.error:.3f}")
    return figure


def plot_precision_recall(
    outputs: np.ndarray, targets: np.ndarray, names: list[str], positive_class: int = 1
) -> "Figure":
    """A curve for each of up to 10 classes, of two for the positive one; else the mean over the most frequent classes."""
    counts = (
        (targets > 0).sum(axis=0)
        if targets.ndim > 1
        else np.bincount(targets, minlength=len(names))
    )
    shown = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]][
        :MAX_AVERAGED
    ]
    if targets.ndim == 1 and len(names) == 2:
        shown = [positive_class] if counts[positive_class] else []
    curves = {}
    for number in sorted(shown):
        positive = targets[:, number] > 0 if targets.ndim > 1 else targets == number
        curves[number] = precision_recall(outputs[:, number], positive)
    legend_rows = -(-len(curves) // 2) if len(names) <= MAX_CURVES else 1
    figure = new_figure(4.2, 3.4 + 0.17 * legend_rows)
    axis = figure.subplots()
    if len(names) <= MAX_CURVES:
        for number, (precision, recall) in curves.items():
            points = np.unique(np.linspace(0, len(recall) - 1, MAX_POINTS).astype(int))
            axis.step(recall[points], precision[points], where="pre", label=f" {names[number]}")
    else:
        grid = np.linspace(
            0, 1, 101
        )  # the precision at a recall is that of the first threshold that reaches it
        reached = [
            precision[np.searchsorted(recall, grid)] for precision, recall in curves.values()
        ]
        axis.step(
            grid, np.mean(reached, axis=0), where="pre", label=f"mean over {len(curves)} classes"
        )
    if len(curves) == 1 and targets.ndim == 1:
        share = counts[shown[0]] / len(targets)  # the precision of a model that does not know
        axis.axhline(
            share, color="black", linewidth=0.8, linestyle=":", label=f" share of rows {share:.2f}"
        )
    axis.set(
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        title="precision and recall",
    )
    if curves:
        # Below the curves, so that the plot is narrow enough for a phone.
        axis.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False
        )
    return figure


def plot_predicted(values: np.ndarray, targets: np.ndarray) -> "Figure":
    """Predicted against true values of a regression; at most 2,000 examples, evenly spaced in their order."""
    points = np.unique(np.linspace(0, len(targets) - 1, MAX_POINTS).astype(int))
    figure = new_figure(3.8, 3.6)
    axis = figure.subplots()
    axis.scatter(targets[points], values[points], s=8, alpha=0.5)
    span = [float(targets.min()), float(targets.max())]
    axis.plot(span, span, color="gray", linewidth=0.8, linestyle=":")
    axis.locator_params(axis="x", nbins=4)  # large numbers side by side
    axis.set(
        xlabel="true",
        ylabel="predicted",
        title=f"{len(points):,} of {len(targets):,} validation examples",
    )
    return figure


def plot_names(names: Sequence[str]) -> list[str]:
    """The names of classes for a plot: in one line, shortened in the middle, different, and no formulas of matplotlib.

    A name of characters that the font lacks is replaced by the number of the class, and a log line says so.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    glyphs = get_font(findfont(FontProperties())).get_charmap()
    texts = [" ".join(name.split()) for name in names]
    lacking = [
        number for number, text in enumerate(texts) if any(ord(sign) not in glyphs for sign in text)
    ]
    for number in lacking:
        texts[number] = f"class {number}"
    if lacking:
        logger.info(
            f"plots show {len(lacking)} of {len(names)} classes by number (from 0): no font for their names"
        )
    short = [_shorten(text) for text in texts]
    if len(set(short)) < len(
        set(texts)
    ):  # they differ in the middle: without what all begin and end with
        start, end = (_common_length([text[::step] for text in texts]) for step in (1, -1))
        middles = [
            f"{'...' * (start > 0)}{text[start : len(text) - end]}{'...' * (end > 0)}"
            for text in texts
        ]
        short = [
            _shorten(min(text, middle, key=len))
            for text, middle in zip(texts, middles, strict=True)
        ]
    counts = Counter(short)
    short = [f"{number}: {text}" if counts[text] > 1 else text for number, text in enumerate(short)]
    return [text.replace("$", r"\$") for text in short]


def _common_length(texts: Sequence[str]) -> int:
    """The length of the longest common start."""
    return sum(1 for _ in takewhile(lambda signs: len(set(signs)) == 1, zip(*texts, strict=False)))


def _shorten(text: str) -> str:
    half = (MAX_NAME - 3) // 2
    return text if len(text) <= MAX_NAME else f"{text[:half]}...{text[-half:]}"
