"""What a cross-validation found, as a table, as JSON and as a picture: the model beside every baseline."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np

from mlxlab.analysis.crossvalidation import Result

MODEL = "this model"


@dataclass(frozen=True)
class Row:
    """Accuracies of one method: their mean over all fits, its standard error, the mean of each seed.

    `gain` is the mean of (model - method), fold by fold, with its standard error: folds are hard or easy for both.
    """

    name: str
    mean: float
    error: float
    by_seed: list[float]
    gain: float
    gain_error: float


def summarise(results: Sequence[Result]) -> list[Row]:
    """A row for each baseline and the model, the lowest first. The model is judged by its last step."""
    accuracies = {name: [result.baselines[name] for result in results] for name in results[0].baselines}
    accuracies[MODEL] = [result.final for result in results]
    model = np.array(accuracies[MODEL])
    seeds = np.array([result.seed for result in results])
    rows = []
    for name, given in accuracies.items():
        values = np.array(given)
        by_seed = [float(values[seeds == seed].mean()) for seed in np.unique(seeds)]
        gains = model - values
        rows.append(Row(name, float(values.mean()), _error(values), by_seed, float(gains.mean()), _error(gains)))
    return sorted(rows, key=lambda row: row.mean)


def markdown(results: Sequence[Result], command: str, more: Sequence[str] = ()) -> str:
    """The table, how it was judged, and the command that makes it again."""
    rows = summarise(results)
    seeds = sorted({result.seed for result in results})
    width = max(len("accuracy of"), *(len(row.name) for row in rows))
    heads = ["  mean", "std. error", *(f"seed {seed}" for seed in seeds), "  model - this"]
    lines = [f"| {'accuracy of':<{width}} | " + " | ".join(heads) + " |"]
    lines.append(f"|{'-' * (width + 2)}|" + "|".join("-" * (len(head) + 1) + ":" for head in heads) + "|")
    for row in rows:
        gain = "" if row.name == MODEL else f"{row.gain:+.3f} ({row.gain_error:.3f})"
        cells = [f"{row.mean:6.4f}", f"{row.error:10.4f}", *(f"{value:6.4f}" for value in row.by_seed), f"{gain:>14}"]
        lines.append(f"| {row.name:<{width}} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_judgement(results), *more, "", f"    {command}"])


def _judgement(results: Sequence[Result]) -> list[str]:
    folds, seeds = len({result.fold for result in results}), len({result.seed for result in results})
    steps = sorted({result.steps for result in results})
    best = float(np.mean([result.best for result in results]))
    text = (
        f"Folds x seeds: {folds} x {seeds}; a seed shuffles the folds and draws the weights. The standard error is "
        f"over the {len(results)} fits, which share rows. The model is judged at its last step ({_span(steps)}): "
        "nothing is chosen by the fold that judges. "
        f"The checkpoint that was best on its own fold would read {best:.4f}."
    )
    return wrap(text, 120)


def _span(steps: list[int]) -> str:
    return f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def write(results: Sequence[Result], command: str, folder: Path, more: Sequence[str] = ()) -> str:
    """Writes table.md, table.json and table.png; returns the table. `more` is said below it."""
    text = markdown(results, command, more)
    rows = summarise(results)
    (folder / "table.md").write_text(text + "\n")
    figures = {
        "command": command,
        "judged": "last step",
        "rows": [asdict(row) for row in rows],
        "fits": [asdict(result) for result in results],
    }
    (folder / "table.json").write_text(json.dumps(figures, indent=1) + "\n")
    _draw(results, rows, folder / "table.png")
    return text


def _draw(results: Sequence[Result], rows: Sequence[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.55 * len(rows) + 1.2))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for place, row in enumerate(rows):
        color = "C1" if row.name == MODEL else "C0"
        for result in results:
            value = result.final if row.name == MODEL else result.baselines[row.name]
            axis.plot(value, place + 0.12 * (result.seed % 3 - 1), ".", color=color, alpha=0.5)
        axis.errorbar(row.mean, place, xerr=row.error, fmt="|", color="black", markersize=14, capsize=3)
        axis.annotate(f"{row.mean:.3f}", (row.mean, place), xytext=(0, 9), textcoords="offset points", ha="center")
    axis.set_yticks(range(len(rows)), [row.name for row in rows])
    axis.set(xlabel="accuracy: a dot per fold, the mean and its standard error", ylim=(-0.6, len(rows) - 0.3))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean; 0 of a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
